"""What can be wrong with apps, functions and triggers. Codes and texts are Fn's unless it says so.

`FnNotFound` is in `hostler.errors`, where the call path has it too.
"""

from __future__ import annotations

from ..errors import APIError, FnNotFound

__all__ = ["FnNotFound"]


class Invalid(APIError):
    """Base of what is wrong with the values of a request."""

    default_code = 400


class NotFound(APIError):
    """Base of what is not there."""

    default_code = 404


class Conflict(APIError):
    """Base of what does not go with what is there."""

    default_code = 409


class DatastoreUnavailable(APIError):
    """The database is down or too slow. Ours: Fn answers 500."""

    default_code = 503
    default_message = "Datastore unavailable, try again later"


class InvalidCursor(Invalid):
    """Ours: Fn answers 500."""

    default_message = "Invalid cursor"


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


class AppMissingID(Invalid):
    default_message = "Missing app ID"


class AppIDProvided(Invalid):
    default_message = "App ID cannot be supplied on create"


class AppIDMismatch(Invalid):
    default_message = "App ID in path does not match ID in body"


class AppMissingName(Invalid):
    """Of a new app."""

    default_message = "Missing Name"


class AppNameTooLong(Invalid):
    default_message = "App name must be 255 characters or less"


class AppInvalidName(Invalid):
    default_message = "Invalid app name"


class AppExists(Conflict):
    default_message = "App already exists"


class AppNameImmutable(Conflict):
    default_message = "Could not update - name is immutable"


class AppNotFound(NotFound):
    default_message = "App not found"


class AppInvalidShape(Invalid):
    default_message = "Invalid app shape"


class InvalidSyslogURL(Invalid):
    @classmethod
    def of(cls, url: str, reason: str) -> InvalidSyslogURL:
        return cls(message=f'invalid syslog url: "{url}" {reason}')


# --- functions ---


class FnIDMismatch(Invalid):
    default_message = "Fn ID in path does not match that in body"


class FnIDProvided(Invalid):
    default_message = "ID cannot be provided for Fn creation"


class FnMissingID(Invalid):
    default_message = "Missing Fn ID"


class FnMissingName(Invalid):
    default_message = "Missing Fn name"


class FnInvalidName(Invalid):
    default_message = "name must be a valid string"


class FnNameTooLong(Invalid):
    default_message = "Fn name must be 255 characters or less"


class FnMissingAppID(Invalid):
    default_message = "Missing AppID on Fn"


class FnMissingImage(Invalid):
    default_message = "Missing image on Fn"


class FnInvalidTimeout(Invalid):
    """The text has the limits that hold, and does not claim that 0 is within them (Fn's does)."""

    @classmethod
    def over(cls, limit: int) -> FnInvalidTimeout:
        return cls(message=f"timeout value is out of range, must be between 1 and {limit}")


class FnInvalidIdleTimeout(Invalid):
    """As `FnInvalidTimeout`."""

    @classmethod
    def over(cls, limit: int) -> FnInvalidIdleTimeout:
        return cls(message=f"idle_timeout value is out of range, must be between 1 and {limit}")


class FnInvalidMemory(Invalid):
    """As `FnInvalidTimeout`."""

    @classmethod
    def over(cls, limit: int) -> FnInvalidMemory:
        return cls(message=f"memory value is out of range. It should be between 1 and {limit}")


class FnExists(Conflict):
    default_message = "Fn with specified name already exists"


# --- triggers ---


class TriggerMissingID(Invalid):
    default_message = "Missing ID"


class TriggerIDProvided(Invalid):
    default_message = "ID cannot be provided for Trigger creation"


class TriggerIDMismatch(Invalid):
    default_message = "ID in path does not match ID in body"


class TriggerMissingName(Invalid):
    default_message = "Missing name on Trigger"


class TriggerNameTooLong(Invalid):
    default_message = "Trigger name must be 255 characters or less"


class TriggerInvalidName(Invalid):
    default_message = "Invalid name for Trigger"


class TriggerMissingAppID(Invalid):
    default_message = "Missing App ID on Trigger"


class TriggerMissingFnID(Invalid):
    default_message = "Missing Fn ID on Trigger"


class TriggerFnNotInApp(Invalid):
    default_message = "Invalid Fn ID - not owned by specified app"


class TriggerTypeUnknown(Invalid):
    default_message = "Trigger Type Not Supported"


class TriggerMissingSource(Invalid):
    default_message = "Missing Trigger Source"


class TriggerMissingSourcePrefix(Invalid):
    default_message = "Missing Trigger Source Prefix '/'"


class TriggerNotFound(NotFound):
    default_message = "Trigger not found"


class TriggerExists(Conflict):
    default_message = "Trigger already exists"


class TriggerSourceExists(Conflict):
    default_message = "Trigger with the same type and source exists on this app"


class TriggerCreatedAtProvided(Invalid):
    default_message = "Trigger Created At Provided for Create"


class TriggerUpdatedAtProvided(Invalid):
    """Fn's text is that of an id, by mistake."""

    default_message = "Trigger Updated At Provided for Create"


# --- annotations ---


class InvalidAnnotationKey(Invalid):
    default_message = (
        "Invalid annotation key, annotation keys must be non-empty ascii strings "
        "excluding whitespace"
    )


class InvalidAnnotationKeyLength(Invalid):
    default_message = (
        "Invalid annotation key length, annotation keys may not be larger than 128 bytes"
    )


class InvalidAnnotationValue(Invalid):
    default_message = (
        "Invalid annotation value, annotation values may only be non-empty strings, numbers, "
        "objects, or arrays"
    )


class InvalidAnnotationValueLength(Invalid):
    default_message = (
        "Invalid annotation value length, annotation values may not be larger than 512 bytes "
        "when serialized as JSON"
    )


class TooManyAnnotationKeys(Invalid):
    default_message = (
        "Invalid annotation change, new key(s) exceed maximum permitted number of annotations "
        "keys (100)"
    )
