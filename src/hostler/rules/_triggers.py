"""The rules of triggers, but for those against what else there is."""

from __future__ import annotations

import attrs

from hostler.datastore import TriggerPatch
from hostler.models import Trigger

from ._annotations import check_annotations, compact_annotations, merge_annotations
from ._texts import MAX_SOURCE_BYTES, check_text, is_too_long_name, is_word
from .errors import (
    TriggerCreatedAtProvided,
    TriggerIDProvided,
    TriggerInvalidName,
    TriggerMissingAppID,
    TriggerMissingFnID,
    TriggerMissingName,
    TriggerMissingSource,
    TriggerMissingSourcePrefix,
    TriggerNameTooLong,
    TriggerTypeUnknown,
    TriggerUpdatedAtProvided,
)

TRIGGER_TYPES = ("http",)


def check_new_trigger(trigger: Trigger) -> Trigger:
    """What a datastore keeps of ``trigger``: the same, with compact annotations.

    Raises what is wrong: with the id and the dates (there must be none), app id, name, function
    id, type, source, annotations, in this order.
    """
    if trigger.id:
        raise TriggerIDProvided
    if trigger.created_at is not None:
        raise TriggerCreatedAtProvided
    if trigger.updated_at is not None:
        raise TriggerUpdatedAtProvided
    new = attrs.evolve(trigger, annotations=compact_annotations(trigger.annotations))
    check_trigger(new)
    return new


def merge_trigger(trigger: Trigger, patch: TriggerPatch) -> Trigger:
    """The changed trigger; ``trigger`` itself if nothing changes. ``patch.id`` is not looked at.

    Raises what is wrong with the result. Whether it goes with the app, the function and the other
    triggers has to be checked as for a new one.
    """
    merged = attrs.evolve(
        trigger,
        name=patch.name or trigger.name,
        app_id=patch.app_id or trigger.app_id,
        fn_id=patch.fn_id or trigger.fn_id,
        source=patch.source or trigger.source,
        annotations=merge_annotations(trigger.annotations, patch.annotations),
    )
    check_trigger(merged)
    return trigger if merged == trigger else merged


def check_trigger(trigger: Trigger) -> None:
    """Raises what is wrong with the values of a whole trigger, whose annotations are compact."""
    if not trigger.app_id:
        raise TriggerMissingAppID
    if not trigger.name:
        raise TriggerMissingName
    if is_too_long_name(trigger.name):
        raise TriggerNameTooLong
    if not is_word(trigger.name):
        raise TriggerInvalidName
    if not trigger.fn_id:
        raise TriggerMissingFnID
    if trigger.type not in TRIGGER_TYPES:
        raise TriggerTypeUnknown
    _check_source(trigger.source)
    check_annotations(trigger.annotations)


def _check_source(source: str) -> None:
    if not source:
        raise TriggerMissingSource
    if not source.startswith("/"):
        raise TriggerMissingSourcePrefix
    check_text("source", source, MAX_SOURCE_BYTES)
