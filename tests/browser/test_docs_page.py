"""The pages of the API's documentation, in a real Chromium."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.people import OpenPage, payload
from tests.pictures import plain
from tests.serving import SPECIFICATION


@pytest.mark.slow
def test_try_it_out_works_as_it_opens_and_there_is_a_way_back(fake_service, open_page: OpenPage):
    page = open_page(f"{fake_service.base_url}/docs", ".opblock")
    groups = page.locator(".opblock-tag").evaluate_all("tags => tags.map((t) => t.dataset.tag)")
    assert groups == ["enhance", "jobs", "compare", "models", "status", "page", "admin"]
    call = page.locator("#operations-enhance-enhance_enhance_post")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    call.locator("input[type=file]").set_input_files(payload(plain()))
    with page.expect_response(lambda answer: urlsplit(answer.url).path == "/enhance") as answer:
        call.get_by_role("button", name="Execute").click()
    assert answer.value.status == 200, answer.value.text()
    assert answer.value.headers["content-type"].startswith("image/")
    expect(page.locator("img[src^='blob:']").first).to_be_visible(timeout=30_000)
    back = page.get_by_role("link", name="Back to the page")
    expect(back).to_have_attribute("href", "./")


def test_every_call_has_a_group_and_pictures_come_before_json(fake_service):
    for path, operations in SPECIFICATION["paths"].items():
        for operation in operations.values():
            assert len(operation["tags"]) == 1, path
            for response in operation["responses"].values():
                types = list(response.get("content", {}))
                if any(name.startswith("image/") for name in types):
                    assert types[0].startswith("image/"), path
