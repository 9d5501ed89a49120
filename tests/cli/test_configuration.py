from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.configuration import AdminAddress, admin_addresses, load_settings
from engine.core.errors import ConfigError


def test_admin_address_is_the_data_directory_s_socket_by_default(config: str) -> None:
    path = Path(config)
    path.write_text(
        path.read_text().replace("[admin]", "").replace(f'listen = "{path.parent}/admin.sock"', "")
    )
    assert [str(each) for each in admin_addresses(load_settings(config))] == [
        f"{path.parent}/data/admin.sock"
    ]


def test_admin_address_over_tcp(config: str) -> None:
    path = Path(config)
    path.write_text(path.read_text().replace(f"{path.parent}/admin.sock", "127.0.0.1:8025"))
    assert admin_addresses(load_settings(config)) == [AdminAddress("", "127.0.0.1", 8025)]


@pytest.mark.parametrize(
    ("record", "addresses"),
    [
        ("unix:/run/old.sock\n", [AdminAddress("/run/old.sock", "", 0)]),
        ("tcp:127.0.0.1:8025\n", [AdminAddress("", "127.0.0.1", 8025)]),
        ("tcp:[::1]:8025\n", [AdminAddress("", "::1", 8025)]),
        ("", []),
        ("nonsense", []),
    ],
)
def test_the_address_on_record_comes_second(config: str, record: str, addresses: list[AdminAddress]) -> None:
    run_dir = Path(config).parent / "data" / "run"
    run_dir.mkdir(parents=True)
    (run_dir / "admin").write_text(record)
    named = AdminAddress(f"{Path(config).parent}/admin.sock", "", 0)
    assert admin_addresses(load_settings(config)) == [named, *addresses]
    (run_dir / "admin").write_text(f"unix:{named}\n")
    assert admin_addresses(load_settings(config)) == [named]


def test_address_of_version_six_stands_in_brackets() -> None:
    assert str(AdminAddress("", "::1", 8025)) == "[::1]:8025"


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mailrail.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load_settings(str(path))
