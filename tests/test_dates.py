from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hostler.dates import EPOCH, UNSET_TEXT, format_date, parse_date

whole_minutes = st.integers(-23 * 60, 23 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
zoned = st.datetimes(min_value=dt.datetime(2, 1, 1), timezones=whole_minutes)


def _zone(hours: float) -> dt.timezone:
    return dt.timezone(dt.timedelta(hours=hours))


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (None, "0001-01-01T00:00:00.000Z"),
        (dt.datetime(2025, 9, 26, 12, 57, 15, 123_000, dt.UTC), "2025-09-26T12:57:15.123Z"),
        (dt.datetime(2025, 9, 26, 12, 57, 15, 0, _zone(2)), "2025-09-26T12:57:15.000+02:00"),
        (dt.datetime(2025, 9, 26, 12, 57, 15, 0, _zone(-5.5)), "2025-09-26T12:57:15.000-05:30"),
        (dt.datetime(2025, 9, 26, 12, 57, 15, 999_999, dt.UTC), "2025-09-26T12:57:15.999Z"),
        (dt.datetime(2025, 9, 26, 12, 57, 15, 0, _zone(0)), "2025-09-26T12:57:15.000Z"),
    ],
)
def test_output(date: dt.datetime | None, expected: str) -> None:
    assert format_date(date) == expected


moments = st.sampled_from([0.0, 0.25, 0.999, 1.0, 59.5, 86_400.0, -0.001, -1.0])


@given(st.datetimes(timezones=st.just(dt.UTC)), st.lists(moments))
def test_each_date_is_itself_whatever_was_written_before(
    date: dt.datetime, moments: list[float]
) -> None:
    """What is the same as of the date before is not made again."""
    assume(2 <= date.year < 9999)
    for seconds in moments:
        moment = date + dt.timedelta(seconds=seconds)
        assert format_date(moment) == moment.isoformat("T", "milliseconds")[:-6] + "Z"


def test_dates_that_rfc3339_cannot_write() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        format_date(dt.datetime(2025, 1, 1))
    with pytest.raises(ValueError, match="whole minutes"):
        format_date(dt.datetime(2025, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=61))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UNSET_TEXT, None),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T02:00:00+02:00", None),
        ("", EPOCH),
        ("1970-01-01T00:00:00Z", EPOCH),
        ("2025-09-26T12:57:15Z", dt.datetime(2025, 9, 26, 12, 57, 15, 0, dt.UTC)),
        ("2025-09-26T12:57:15.1Z", dt.datetime(2025, 9, 26, 12, 57, 15, 100_000, dt.UTC)),
        ("2025-09-26T12:57:15.123456789Z", dt.datetime(2025, 9, 26, 12, 57, 15, 123_456, dt.UTC)),
        ("2025-09-26T12:57:15.5-05:30", dt.datetime(2025, 9, 26, 12, 57, 15, 500_000, _zone(-5.5))),
    ],
)
def test_input(text: str, expected: dt.datetime | None) -> None:
    assert parse_date(text) == expected


def test_the_first_moments_of_another_zone_are_not_unset() -> None:
    for text in ("0001-01-01T00:00:00+02:00", "0001-01-01T00:00:00-02:00"):
        assert parse_date(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "2025-09-26",
        "2025-09-26T12:57Z",
        "2025-09-26T12:57:15",
        "2025-09-26 12:57:15Z",
        "2025-09-26t12:57:15z",
        "20250926T125715Z",
        "2025-W39-5T12:57:15Z",
        "2025-09-26T24:00:00Z",
        "2025-09-26T12:57:60Z",
        "2025-02-30T12:57:15Z",
        "2025-09-26T12:57:15.Z",
        "2025-09-26T12:57:15+0200",
        "2025-09-26T12:57:15+02:60",
        "2025-09-26T12:57:15+24:00",
        "2025-09-26T12:57:15+02:00:30",
        "٢025-09-26T12:57:15Z",
        " 2025-09-26T12:57:15Z",
        "2025-09-26T12:57:15Z\n",
        "x" * 10_000,
    ],
)
def test_other_texts_are_refused_in_few_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an? (RFC 3339 )?date: ") as caught:
        parse_date(text)
    assert len(str(caught.value)) < 200


@given(zoned)
def test_what_is_written_is_read_back_to_the_millisecond(date: dt.datetime) -> None:
    read = parse_date(format_date(date))
    assert read is not None
    assert read == date.replace(microsecond=date.microsecond // 1000 * 1000)
    assert read.utcoffset() == date.utcoffset()


@given(zoned, st.integers(0, 12))
def test_any_number_of_digits_is_read(date: dt.datetime, digits: int) -> None:
    fraction = f"{date.microsecond:06}000000"[:digits]
    text = date.replace(microsecond=0).isoformat()
    read = parse_date(f"{text[:19]}{'.' if fraction else ''}{fraction}{text[19:]}")
    kept = int(fraction[:6].ljust(6, "0"))
    assert read == date.replace(microsecond=kept)
