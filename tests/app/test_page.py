"""What the page's events answer, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from smooth_attention.app.answers import NOBODY, TRAINED_SIZE, Answers
from smooth_attention.app.page import RULE_NAMES
from smooth_attention.app.session import RULES
from smooth_attention.app.viewer import Viewer

NUM_DRAWN = 4 + 2 * 12


@pytest.fixture(scope="module")
def viewer(make_viewer: Callable[..., Viewer]) -> Viewer:
    return make_viewer(classes=1, heads=4)


@pytest.fixture
def answers(viewer: Viewer, tmp_path: Path) -> Answers:
    return Answers(lambda: viewer, tmp_path)


def controls(first: str = "smooth", *, second: str = NOBODY) -> list[Any]:
    return [first, second, TRAINED_SIZE, "as trained", 0.1, 0.7, "mask"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sentences: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: sentences.append(message))
    return sentences


EVENT = SimpleNamespace(index=[3, 4])
WITHOUT_SESSION: dict[str, Callable[[Answers], Any]] = {
    "click": lambda answers: answers.click_main(EVENT, None, *controls()),
    "click below": lambda answers: answers.click_picture(EVENT, None, *controls()),
    "slide": lambda answers: answers.redraw(None, *controls()),
}


@pytest.mark.parametrize("name", WITHOUT_SESSION)
def test_page_that_was_idle_gets_a_sentence_and_stays(answers: Answers, told: list[str], name: str) -> None:
    assert WITHOUT_SESSION[name](answers) == gr.skip()
    assert told == ["there is no image, or this page was idle for too long; choose a sample or upload one"]


def test_saving_that_is_refused_stops_what_would_follow(answers: Answers) -> None:
    for save in (answers.save_view, answers.save_mask):
        with pytest.raises(gr.Error, match="this page was idle for too long"):
            save(None)
    session = answers.start(*controls("none"))[0]
    with pytest.raises(gr.Error, match="none has no attention to save a view of"):
        answers.save_view(session)


def test_picture_is_not_written_again_while_somebody_may_be_fetching_it(answers: Answers, tmp_path: Path) -> None:
    first = answers.start(*controls())
    files = {path: path.stat().st_ino for path in tmp_path.rglob("*.jpeg")}
    assert {first[2], *first[6:11]} == {str(path) for path in files}
    assert answers.start(*controls())[2] == first[2]
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()} == files


def test_3d_waits_for_an_image(answers: Answers) -> None:
    assert answers.turn(True, None) == [gr.skip(), gr.skip()]


def test_heads_of_either_network_can_be_chosen(answers: Answers) -> None:
    session = answers.start(*controls())[0]
    beside = answers.change_second(session, *controls(second="heads"))
    assert (beside[-1].value, len(beside[-1].choices)) == (0, 4)
    third = answers.change_head(3, beside[0], *controls(second="heads"))
    assert "head 3: row" in third[3]
    alone = answers.change_second(third[0], *controls())
    assert (alone[-1].value, len(alone[-1].choices)) == (0, 1)


def test_list_that_is_left_as_it_was_changes_nothing(answers: Answers, told: list[str]) -> None:
    session = answers.start(*controls())[0]
    several = answers.change_head(3, answers.change_first(session, *controls("heads"))[0], *controls("heads"))[0]
    again = answers.change_first(several, *controls("heads"))
    assert again[0].drawn.head == again[-1].value == 3
    assert answers.choose_sample(None, several, *controls("heads")) == gr.skip()  # its list shows nothing
    assert told == []


def test_page_that_was_idle_for_too_long_shows_the_head_that_it_lists(answers: Answers, viewer: Viewer) -> None:
    name = next(iter(viewer.open("smooth").samples))
    shown = answers.choose_sample(name, None, *controls(second="heads"))
    assert shown[0].drawn.head == shown[-1].value == 0
    assert len(shown) == NUM_DRAWN + 1


def test_sample_that_is_chosen_twice_at_once_keeps_the_position(answers: Answers, viewer: Viewer) -> None:
    name = next(iter(viewer.open("smooth").samples))
    chosen = answers.choose_sample(name, answers.start(*controls())[0], *controls())[0]
    clicked = answers.click_main(EVENT, chosen, *controls())[0]
    assert clicked.point != chosen.point
    assert answers.choose_sample(name, clicked, *controls())[0].point == clicked.point


def test_start_shows_the_middle_sample(answers: Answers, viewer: Viewer) -> None:
    shown = answers.start(*controls())
    assert len(shown) == NUM_DRAWN + 2
    names = list(viewer.open("smooth").samples)
    assert shown[0].subject.name == names[len(names) // 2] == shown[-2].value


def test_head_that_is_drawn_is_the_one_in_the_list(answers: Answers, tmp_path: Path) -> None:
    session = answers.start(*controls())[0]
    other = answers.change_first(session, *controls("heads"))
    assert (other[-1].value, len(other[-1].choices)) == (0, 4)
    assert ", head 0: row" in other[3]
    third = answers.change_head(3, other[0], *controls("heads"))
    assert ", head 3: row" in third[3]
    image = tmp_path / "own.png"
    Image.new("RGB", (40, 40)).save(image)
    uploaded = answers.choose_upload(str(image), third[0], *controls("heads"))
    assert uploaded[-1].value == 3
    assert ", head 3: row" in uploaded[3]
    assert uploaded[-2].value is None


def test_sample_of_the_same_name_from_other_data_is_not_chosen(answers: Answers) -> None:
    session = answers.start(*controls())[0]
    assert answers.change_first(session, *controls("none"))[-2].value == session.subject.name
    object.__setattr__(session.subject, "data", "other")
    assert answers.change_first(session, *controls("none"))[-2].value is None


def test_unknown_network_is_a_sentence(answers: Answers, told: list[str]) -> None:
    assert answers.change_first(None, *controls("/etc")) == gr.skip()
    assert "none of the networks here" in told[0]


def test_rules_of_the_page_are_those_of_the_session() -> None:
    assert tuple(RULES) == RULE_NAMES
