import json

import pytest

from tljax.recipes.options import SettingsError
from tljax.recipes.settings import Settings, settings_from


def test_defaults_cut_the_digits_in_two() -> None:
    settings = Settings()
    assert settings.classes == ("0-4", "5-9")
    assert settings.title == "digits 0-4 -> digits 5-9"
    assert settings.all_shots == (1, 2, 5, 10)


def test_classes_are_left_alone_where_something_is_said() -> None:
    assert Settings(target_classes="7,8").classes == (None, "7,8")
    assert Settings(source="a.npz").classes == (None, None)


def test_the_curve_always_holds_the_main_comparison() -> None:
    assert Settings(labels_per_class=20).all_shots == (1, 2, 5, 10, 20)
    assert Settings(labels_per_class=3, shots=(7, 1)).all_shots == (1, 3, 7)


def test_values_from_files_are_taken_as_they_are_meant() -> None:
    settings = settings_from({"learning_rates": [1, 0.1], "shots": 5, "resume": False})
    assert settings.learning_rates == (1.0, 0.1)
    assert settings.all_shots == (5, 10)
    assert settings.resume is False


def test_the_folder_follows_what_decides_the_result() -> None:
    same = Settings(resume=False).folder
    assert Settings().folder == same
    assert Settings(steps=7).folder != same
    assert str(Settings(run_dir="here").folder) == "here"
    assert json.loads(json.dumps(Settings().described())) == Settings().described()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stpes": 3}, "unknown option 'stpes'; did you mean 'steps'"),
        ({"steps": 0}, "'steps' is 0; it should be 1 or more"),
        ({"steps": "3"}, "'steps' should be int; found '3'"),
        ({"steps": True}, "'steps' should be int; found True"),
        ({"shots": [0]}, "'shots' is (0,)"),
        ({"learning_rates": []}, "'learning_rates' is ()"),
        ({"learning_rates": [-1.0]}, "'learning_rates' is (-1.0,)"),
        ({"model": "resnet21"}, "'resnet20'"),
        ({"method": "ful"}, "one of full, linear-probe, lp-ft; did you mean 'full'"),
        ({"seed": -1}, "'seed' is -1"),
        ({"image_size": 0}, "'image_size' is 0"),
    ],
)
def test_wrong_options_are_named(values: dict, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings_from(values)
    assert message in str(error.value)
