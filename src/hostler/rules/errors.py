"""What can be wrong with apps, functions and triggers. Codes and texts are Fn's unless it says so.

`FnNotFound` is in `hostler.errors`, where the call path has it too.
"""

from __future__ import annotations

from ..errors import APIError, FnNotFound

__all__ = ["FnNotFound"]


class Invalid(APIError, code=400):
    """Base of what is wrong with the values of a request."""


class NotFound(APIError, code=404):
    """Base of what is not there."""


class Conflict(APIError, code=409):
    """Base of what does not go with what is there."""


class DatastoreUnavailable(APIError, code=503, text="Datastore unavailable, try again later"):
    """The database is down or too slow. Ours: Fn answers 500."""


class InvalidCursor(Invalid, text="Invalid cursor"):
    """Ours: Fn answers 500."""


class InvalidText(Invalid):
    """A text is longer than its limit, or has what some database can't keep. Ours."""

    @classmethod
    def not_unicode(cls, what: str) -> InvalidText:
        return cls(message=f"{what} must be Unicode text")

    @classmethod
    def nul(cls, what: str) -> InvalidText:
        return cls(message=f"{what} must not have NUL characters")

    @classmethod
    def too_long(cls, what: str, limit: int) -> InvalidText:
        return cls(message=f"{what} must be {limit} bytes or less")


# --- apps ---


class AppMissingID(Invalid, text="Missing app ID"): ...


class AppIDProvided(Invalid, text="App ID cannot be supplied on create"): ...


class AppIDMismatch(Invalid, text="App ID in path does not match ID in body"): ...


class AppMissingName(Invalid, text="Missing Name"):
    """Of a new app."""


class AppNameTooLong(Invalid, text="App name must be 255 characters or less"): ...


class AppInvalidName(Invalid, text="Invalid app name"): ...


class AppExists(Conflict, text="App already exists"): ...


class AppNameImmutable(Conflict, text="Could not update - name is immutable"): ...


class AppNotFound(NotFound, text="App not found"): ...


class AppInvalidShape(Invalid, text="Invalid app shape"): ...


class InvalidSyslogURL(Invalid):
    @classmethod
    def of(cls, url: str, reason: str) -> InvalidSyslogURL:
        return cls(message=f'invalid syslog url: "{url}" {reason}')


# --- functions ---


class FnIDMismatch(Invalid, text="Fn ID in path does not match that in body"): ...


class FnIDProvided(Invalid, text="ID cannot be provided for Fn creation"): ...


class FnMissingID(Invalid, text="Missing Fn ID"): ...


class FnMissingName(Invalid, text="Missing Fn name"): ...


class FnInvalidName(Invalid, text="name must be a valid string"): ...


class FnNameTooLong(Invalid, text="Fn name must be 255 characters or less"): ...


class FnMissingAppID(Invalid, text="Missing AppID on Fn"): ...


class FnMissingImage(Invalid, text="Missing image on Fn"): ...


class OutOfRange(Invalid):
    """Base of what is not between 1 and a limit. The text has the limit that holds, and does not
    claim that 0 is within it (Fn's does)."""

    @classmethod
    def over(cls, limit: int) -> OutOfRange:
        return cls(message=cls.default_message.format(limit))


class FnInvalidTimeout(
    OutOfRange, text="timeout value is out of range, must be between 1 and {}"
): ...


class FnInvalidIdleTimeout(
    OutOfRange, text="idle_timeout value is out of range, must be between 1 and {}"
): ...


class FnInvalidMemory(
    OutOfRange, text="memory value is out of range. It should be between 1 and {}"
): ...


class FnExists(Conflict, text="Fn with specified name already exists"): ...


# --- triggers ---


class TriggerMissingID(Invalid, text="Missing ID"): ...


class TriggerIDProvided(Invalid, text="ID cannot be provided for Trigger creation"): ...


class TriggerIDMismatch(Invalid, text="ID in path does not match ID in body"): ...


class TriggerMissingName(Invalid, text="Missing name on Trigger"): ...


class TriggerNameTooLong(Invalid, text="Trigger name must be 255 characters or less"): ...


class TriggerInvalidName(Invalid, text="Invalid name for Trigger"): ...


class TriggerMissingAppID(Invalid, text="Missing App ID on Trigger"): ...


class TriggerMissingFnID(Invalid, text="Missing Fn ID on Trigger"): ...


class TriggerFnNotInApp(Invalid, text="Invalid Fn ID - not owned by specified app"): ...


class TriggerTypeUnknown(Invalid, text="Trigger Type Not Supported"): ...


class TriggerMissingSource(Invalid, text="Missing Trigger Source"): ...


class TriggerMissingSourcePrefix(Invalid, text="Missing Trigger Source Prefix '/'"): ...


class TriggerNotFound(NotFound, text="Trigger not found"): ...


class TriggerExists(Conflict, text="Trigger already exists"): ...


class TriggerSourceExists(
    Conflict, text="Trigger with the same type and source exists on this app"
): ...


class TriggerCreatedAtProvided(Invalid, text="Trigger Created At Provided for Create"): ...


class TriggerUpdatedAtProvided(Invalid, text="Trigger Updated At Provided for Create"):
    """Fn's text is that of an id, by mistake."""


# --- annotations ---


class InvalidAnnotationKey(
    Invalid,
    text="Invalid annotation key, annotation keys must be non-empty ascii strings "
    "excluding whitespace",
): ...


class InvalidAnnotationKeyLength(
    Invalid, text="Invalid annotation key length, annotation keys may not be larger than 128 bytes"
): ...


class InvalidAnnotationValue(
    Invalid,
    text="Invalid annotation value, annotation values may only be non-empty strings, numbers, "
    "objects, or arrays",
): ...


class InvalidAnnotationValueLength(
    Invalid,
    text="Invalid annotation value length, annotation values may not be larger than 512 bytes "
    "when serialized as JSON",
): ...


class TooManyAnnotationKeys(
    Invalid,
    text="Invalid annotation change, new key(s) exceed maximum permitted number of annotations "
    "keys (100)",
): ...
