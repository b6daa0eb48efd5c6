"""Who a caller is, for what is kept of each: by key or, without keys, by address."""

from typing import Annotated

from fastapi import Depends, Request

from app.api.dependencies import sharer


async def get_caller_id(request: Request) -> str:
    """``key NAME`` or ``address ADDRESS``; the address of a caller with IPv6 is its network."""
    return f"{'key' if request.state.caller else 'address'} {sharer(request)}"


CallerIdDependency = Annotated[str, Depends(get_caller_id)]
