"""Image references (reference 07 §8: 19 forms)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.drivers.docker import ImageReference, parse_image

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("image", "registry", "repository", "tag"),
    [
        ("mongo", "", "library/mongo", "latest"),
        ("mongo:v1", "", "library/mongo", "v1"),
        (f"mongo@{DIGEST}", "", "library/mongo", DIGEST),
        (f"mongo:v1@{DIGEST}", "", "library/mongo", DIGEST),
        ("fnproject/fn-test-utils", "", "fnproject/fn-test-utils", "latest"),
        ("fnproject/fn-test-utils:v1", "", "fnproject/fn-test-utils", "v1"),
        (f"fnproject/fn-test-utils@{DIGEST}", "", "fnproject/fn-test-utils", DIGEST),
        ("a/b/c:v1", "", "a/b/c", "v1"),
        ("my.registry/fn", "my.registry", "fn", "latest"),
        ("my.registry/fn:v1", "my.registry", "fn", "v1"),
        ("my.registry/a/b:v1", "my.registry", "a/b", "v1"),
        ("my.registry:5000/fn", "my.registry:5000", "fn", "latest"),
        ("my.registry:5000/fn:v1", "my.registry:5000", "fn", "v1"),
        ("registry:5000/fn:v1", "registry:5000", "fn", "v1"),
        ("quay.com:8080/a/b:v2", "quay.com:8080", "a/b", "v2"),
        (f"quay.com:8080/a/b:v2@{DIGEST}", "quay.com:8080", "a/b", DIGEST),
        ("localhost/a:v1", "localhost", "a", "v1"),
        ("localhost:5000/a/b/c", "localhost:5000", "a/b/c", "latest"),
        (
            "localhost.localdomain:5000/a/b/c:latest",
            "localhost.localdomain:5000",
            "a/b/c",
            "latest",
        ),
    ],
)
def test_forms(image: str, registry: str, repository: str, tag: str) -> None:
    assert parse_image(image) == ImageReference(registry, repository, tag)


def test_name_is_what_the_engine_pulls() -> None:
    assert parse_image("mongo").name == "library/mongo"
    assert parse_image("quay.com:8080/a/b:v2").name == "quay.com:8080/a/b"


word = st.text("abc-019", min_size=1, max_size=8)


# No deadline: the machine that runs the tests may be busy with containers.
@given(
    registry=st.sampled_from(["", "localhost", "a.b", "c:1"]),
    path=st.lists(word, min_size=2, max_size=4),
    tag=word,
)
def test_parts_are_found_again(registry: str, path: list[str], tag: str) -> None:
    repository = "/".join(path)
    text = f"{registry}/{repository}:{tag}" if registry else f"{repository}:{tag}"
    assert parse_image(text) == ImageReference(registry, repository, tag)


@given(st.text())
def test_every_text_gives_a_reference(text: str) -> None:
    assert parse_image(text).tag
