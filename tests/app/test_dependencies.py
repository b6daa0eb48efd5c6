"""What the routes ask for."""

import inspect
from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.api.routes import admin, compare, enhance, jobs, models, page, status


def dependencies(dependant: Dependant) -> Iterator[object]:
    for one in dependant.dependencies:
        yield one.call
        yield from dependencies(one)


def runs_on_the_event_loop(call: object) -> bool:
    functions = (call, getattr(call, "__call__", None))  # noqa: B004
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in functions
    )


def test_no_dependency_of_a_route_goes_through_the_thread_pool():
    routes = [
        route
        for module in (admin, compare, enhance, jobs, models, page, status)
        for route in module.router.routes
        if isinstance(route, APIRoute)
    ]
    found = {call for route in routes for call in dependencies(route.dependant)}
    assert len(found) > 8
    assert [call for call in found if not runs_on_the_event_loop(call)] == []
