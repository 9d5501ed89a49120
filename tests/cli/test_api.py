from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.cli.api import AdminApi, ApiError
from engine.cli.configuration import AdminAddress


def test_criteria_that_are_not_given_are_left_out(admin: Any, tmp_path: Path) -> None:
    admin.answer("/queues", {"queues": []})
    api = AdminApi(AdminAddress(str(tmp_path / "admin.sock"), "", 0))
    assert api.get("/queues", {"customer": None, "domain": "ü.example", "limit": 5}) == {"queues": []}
    assert admin.asked[0][1] == "/queues?domain=%C3%BC.example&limit=5"


def test_error_of_the_engine_keeps_its_status(admin: Any, tmp_path: Path) -> None:
    admin.answer("/reload", {"error": "bad key"}, 422)
    with pytest.raises(ApiError, match="bad key") as caught:
        AdminApi(AdminAddress(str(tmp_path / "admin.sock"), "", 0)).post("/reload", {})
    assert caught.value.status == 422


def test_answer_that_is_not_json_is_an_error(admin: Any, tmp_path: Path) -> None:
    admin.answer("/status", b"<html>")
    with pytest.raises(ApiError, match="not JSON"):
        AdminApi(AdminAddress(str(tmp_path / "admin.sock"), "", 0)).get("/status")


def test_nobody_at_a_tcp_address() -> None:
    where = AdminAddress("", "127.0.0.1", 21711)
    with pytest.raises(ApiError, match=r"no engine answers at 127\.0\.0\.1:21711") as caught:
        AdminApi(where).get("/status")
    assert caught.value.status == 0


def test_where_nobody_listens_the_next_address_is_asked(admin: Any, tmp_path: Path) -> None:
    admin.answer("/reload", {"generation": 2})
    answering = AdminAddress(str(tmp_path / "admin.sock"), "", 0)
    for absent in (AdminAddress(str(tmp_path / "new.sock"), "", 0), AdminAddress("", "127.0.0.1", 21711)):
        assert AdminApi(absent, answering).post("/reload", {}) == {"generation": 2}
        with pytest.raises(ApiError, match=f"no engine answers at {absent}: "):
            AdminApi(absent, absent._replace(path="/nowhere/x.sock")).get("/status")
    assert len(admin.asked) == 2
