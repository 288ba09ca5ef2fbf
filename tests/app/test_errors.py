import pytest

from acquisition import errors as acquisition_errors
from app import errors
from app.errors import ExitCode, exit_code, sentence
from models import errors as model_errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingsError, ExitCode.USAGE),
        (errors.AddressError, ExitCode.ADDRESS),
        (errors.SummaryError, ExitCode.OUTPUT),
        (acquisition_errors.SourceError, ExitCode.SOURCE),
        (acquisition_errors.SourceNotFoundError, ExitCode.SOURCE_NOT_FOUND),
        (acquisition_errors.SourceBusyError, ExitCode.SOURCE_BUSY),
        (acquisition_errors.RecordingError, ExitCode.RECORDING),
        (acquisition_errors.StreamInfoError, ExitCode.STREAM_INFO),
        (acquisition_errors.MontageError, ExitCode.MONTAGE),
        (acquisition_errors.EpochSpecError, ExitCode.BUNDLE),
        (model_errors.BundleError, ExitCode.BUNDLE),
        (model_errors.CheckpointError, ExitCode.BUNDLE),
        (ZeroDivisionError, ExitCode.FAILURE),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: type[Exception], code: ExitCode) -> None:
    assert exit_code(error("text")) is code


def test_a_childs_failure_keeps_the_childs_code() -> None:
    error = errors.ChildFailedError("Two electrodes are known.", ExitCode.MONTAGE)
    assert exit_code(error) is ExitCode.MONTAGE
    assert sentence(error) == "Two electrodes are known."


def test_codes_are_distinct_and_small_enough_for_a_shell() -> None:
    # From 126 on they mean that the shell could not run something, or a signal.
    assert len({int(code) for code in ExitCode}) == len(ExitCode)
    assert all(0 <= code < 126 for code in ExitCode)


def test_every_class_stands_in_the_drawn_tree() -> None:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.AppError):
            assert name in (errors.__doc__ or "")
