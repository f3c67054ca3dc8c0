"""Reading the end of a certificate, and whatever else a file may hold."""

from datetime import datetime, timezone

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bentotool.runtime.certificates import expiry


@pytest.mark.parametrize("year", [2001, 2049, 2051, 9999])
def test_expiry(year):
    moment = datetime(year, 3, 4, 5, 6, 7, tzinfo=timezone.utc)
    leaf = trustme.CA().issue_cert("a.example", not_after=moment)
    assert expiry(leaf.cert_chain_pems[0].bytes().decode()) == moment.timestamp()
    assert expiry("# a comment\n" + leaf.private_key_and_cert_chain_pem.bytes().decode()) == moment.timestamp()


WHOLE = trustme.CA().issue_cert("a.example").cert_chain_pems[0].bytes().decode()


@given(st.integers(0, len(WHOLE)), st.text(alphabet="AZaz09+/=-\n ", max_size=12))
def test_what_is_none(position, text):
    damaged = expiry(WHOLE[:position] + text + WHOLE[position + len(text) :])
    assert damaged is None or isinstance(damaged, float)
    assert expiry(text) is None
