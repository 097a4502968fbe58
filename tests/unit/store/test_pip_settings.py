"""pip's configuration as pip lists it."""

from __future__ import annotations

import sys

import pytest

from openherd.errors import DownloadError, InputError
from openherd.store.package_index import index_web
from openherd.store.pip_settings import PipSettings, parse_pip_settings, read_pip_settings

PYPI = "https://pypi.org/simple"


def test_nothing_configured_is_pypi() -> None:
    assert parse_pip_settings("") == PipSettings(indexes=(PYPI,))


def test_variables_win_over_the_section_which_wins_over_global() -> None:
    listing = "global.index-url='https://global/simple'\ndownload.index-url='https://section/simple'\n"
    assert parse_pip_settings(listing).indexes == ("https://section/simple",)
    assert parse_pip_settings(listing + ":env:.index-url='https://env/simple'").indexes == ("https://env/simple",)


def test_everything_that_is_read() -> None:
    listing = """
        global.cert='/etc/it\\'s.pem'
        global.extra-index-url='https://a/simple\\nhttps://b/simple'
        global.proxy='http://proxy:3128'
        global.timeout='60'
        """
    assert parse_pip_settings(listing) == PipSettings(
        (PYPI, "https://a/simple", "https://b/simple"), "/etc/it's.pem", "http://proxy:3128", 60.0
    )


def test_no_index() -> None:
    assert parse_pip_settings("global.no-index='true'\nglobal.index-url='https://x'").indexes == ()


def test_asks_pip_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://asked/simple")
    assert read_pip_settings().indexes[0] == "https://asked/simple"


def test_without_pip_its_variables_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable/simple")
    assert read_pip_settings().indexes[0] == "https://variable/simple"


def test_certificates_that_cannot_be_read() -> None:
    with pytest.raises(DownloadError, match=r"/no/such\.pem"):
        index_web(PipSettings(certificates="/no/such.pem"))


@pytest.mark.parametrize(
    ("listing", "name"),
    [
        (":env:.timeout='abc'", "timeout"),
        ("global.timeout='nan'", "timeout"),
        ("global.default-timeout='-1'", "default-timeout"),
        (":env:.timeout='1e300'", "timeout"),
        (":env:.index-url='http://[x/simple'", "index-url"),
        ("global.extra-index-url='https://a/simple\\nhttps://me:secret/word@b/simple'", "extra-index-url"),
    ],
)
def test_a_wrong_setting_is_named_and_no_password_is_shown(listing: str, name: str) -> None:
    with pytest.raises(InputError, match=f"^pip's setting {name} ") as caught:
        parse_pip_settings(listing)
    assert name.upper().replace("-", "_") in str(caught.value.hint)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("PIP_TIMEOUT", "abc"), ("PIP_INDEX_URL", "http://[x/simple")])
def test_a_wrong_variable_is_found_even_where_pip_itself_stops_at_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="pip's setting"):
        read_pip_settings()
