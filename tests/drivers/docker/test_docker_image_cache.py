"""Which images are busy, in which order they would go, and which never (reference 07 §8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.drivers.docker.image_cleaner import ImageUsage, StoredImage, choose_victim
from hostler.drivers.docker.images import ImageCache, ImageLease, canonical_name


def stock(*images: StoredImage, disk_size: int = 0) -> ImageUsage:
    return ImageUsage(images, disk_size)


def image(name: str, **fields: object) -> StoredImage:
    fields.setdefault("tags", (f"{name}:latest",))
    return StoredImage(id=name, **fields)  # type: ignore[arg-type]


def lease(cache: ImageCache, name: str) -> ImageLease:
    return cache.lease(name, has_volumes=False)


def victims(
    cache: ImageCache, stored: ImageUsage, exempt: frozenset[str] = frozenset()
) -> list[str]:
    """What would go, in order, if nothing else happened."""
    refused: list[str] = []
    while (victim := choose_victim(stored, cache, exempt, refused)) is not None:
        refused.append(victim.id)
    return refused


def test_the_least_recently_used_goes_first() -> None:
    cache = ImageCache()
    cache.update(["a", "b", "c"])
    lease(cache, "a").release()
    assert victims(cache, stock(image("a"), image("b"), image("c"))) == ["b", "c", "a"]


def test_new_images_count_as_just_used_and_gone_ones_are_forgotten() -> None:
    cache = ImageCache()
    cache.update(["a", "b"])
    lease(cache, "a").release()
    cache.update(["a", "b", "new"])
    assert cache.by_last_use() == ["b", "a", "new"]
    cache.update(["new", "a"])
    assert cache.by_last_use() == ["a", "new"]
    assert not cache.knows("b")


def test_double_busy_needs_double_free() -> None:
    cache = ImageCache()
    cache.update(["a"])
    first, second = lease(cache, "a"), lease(cache, "a")
    first.release()
    assert victims(cache, stock(image("a"))) == []
    second.release()
    assert victims(cache, stock(image("a"))) == ["a"]


def test_surplus_free_is_harmless() -> None:
    cache = ImageCache()
    first, second = lease(cache, "a"), lease(cache, "a")
    first.release()
    first.release()
    assert cache.is_busy("a")
    second.release()
    assert not cache.is_busy("a")


def test_update_of_a_busy_image_changes_nothing() -> None:
    cache = ImageCache()
    held = lease(cache, "a")
    cache.update(["a"])
    cache.update([])
    assert cache.is_busy("a")
    held.release()


def test_a_pin_keeps_whatever_has_the_name() -> None:
    cache = ImageCache()
    cache.update(["a"])
    stored = stock(image("a", tags=("busybox:latest", "other:v1")))
    unpins = [cache.pin("busybox"), cache.pin("docker.io/library/busybox:latest")]
    for unpin in unpins:
        assert victims(cache, stored) == []
        unpin()
    assert victims(cache, stored) == ["a"]


def test_idleness_is_told_at_the_last_reference_only() -> None:
    told: list[str] = []
    cache = ImageCache()
    cache.on_idle = lambda _: told.append("idle")
    first, second = lease(cache, "a"), lease(cache, "a")
    first.release()
    assert told == []
    second.release()
    assert told == ["idle"]


@pytest.mark.parametrize("name", ["busybox", "busybox:latest", "docker.io/library/busybox"])
def test_exempt_names_need_not_be_written_in_full(name: str) -> None:
    """Weakness 04/15: ``busybox`` must exempt ``busybox:latest``."""
    cache = ImageCache()
    cache.update(["a", "b"])
    stored = stock(image("a", tags=("busybox:latest",)), image("b", tags=("busybox:1.36",)))
    assert victims(cache, stored, frozenset([canonical_name(name)])) == ["b"]


def test_one_exempt_name_of_several_is_enough() -> None:
    cache = ImageCache()
    cache.update(["a"])
    digest = "r.io/x@sha256:" + "0" * 64
    stored = stock(image("a", tags=("x:v1",), digests=(digest,)))
    assert victims(cache, stored, frozenset([canonical_name(digest)])) == []
    assert victims(cache, stored, frozenset([canonical_name("x")])) == ["a"]


def test_images_of_other_containers_stay() -> None:
    cache = ImageCache()
    cache.update(["a", "b"])
    assert victims(cache, stock(image("a", containers=1), image("b", tags=()))) == ["b"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mongo", "mongo:latest", True),
        ("mongo", "docker.io/mongo", True),
        ("mongo", "library/mongo", True),
        ("fnproject/hello", "index.docker.io/fnproject/hello:latest", True),
        ("My.Registry/fn", "my.registry/fn:latest", True),
        ("mongo", "mongo:4", False),
        ("mongo", "other/mongo", False),
        ("a.b:5000/x", "a.b/x", False),
        ("x@sha256:0", "x:sha256", False),
        ("x:v1@sha256:0", "x@sha256:0", True),
    ],
)
def test_canonical_names(one: str, other: str, same: bool) -> None:
    assert (canonical_name(one) == canonical_name(other)) is same


NAMES = st.from_regex(
    r"([a-z0-9.]{1,8}(:[0-9]{1,4})?/)?([a-z0-9]{1,8}/)?[a-z0-9]{1,8}(:[A-Za-z0-9.]{1,6})?"
    r"(@sha256:[0-9a-f]{2})?",
    fullmatch=True,
)


@given(NAMES)
def test_a_canonical_name_is_its_own(name: str) -> None:
    assert canonical_name(canonical_name(name)) == canonical_name(name)


def test_shared_layers_count_once_and_exempt_images_with_what_they_share() -> None:
    """Weakness 04/9. Two images of 100 share 90; the exempt one has 10 of its own."""
    stored = stock(
        image("a", size=100, own_size=10), image("b", size=100, own_size=10), disk_size=110
    )
    assert stored.size_without([]) == 110
    assert stored.size_without([canonical_name("a")]) == 100


@given(st.lists(st.tuples(st.sampled_from(["lease", "release", "update"]), st.integers(0, 3))))
def test_never_a_busy_victim_and_never_one_lost(steps: list[tuple[str, int]]) -> None:
    cache = ImageCache()
    held: dict[str, list[ImageLease]] = {str(i): [] for i in range(4)}
    existing = [str(i) for i in range(4)]
    stored = stock(*map(image, existing))
    for what, number in steps:
        name = str(number)
        if what == "lease":
            held[name].append(lease(cache, name))
        elif what == "release" and held[name]:
            held[name].pop().release()
        elif what == "update":
            cache.update(existing)
    cache.update(existing)
    assert set(victims(cache, stored)) == {name for name, leases in held.items() if not leases}
