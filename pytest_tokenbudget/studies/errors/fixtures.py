"""What an eval of errors may ask for.

Imports stand in the fixtures: pytest loads this module when the first eval is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.errors.analysis import ErrorReport
    from pytest_tokenbudget.studies.errors.annotations import Prepared


@pytest.fixture(scope="session")
def prepared(tokenbudget: Session, model: ModelSpec, study: Study) -> Prepared:
    """The tables for annotators: errors and right answers picked at each budget.

    Samples of phase 1b that are there already say whether another try would have been right.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.studies.errors.analysis import attach_samples
    from pytest_tokenbudget.studies.errors.annotation_tables import AnnotationError
    from pytest_tokenbudget.studies.errors.annotations import annotations_folder, prepare
    from pytest_tokenbudget.studies.errors.options import ErrorOptions

    attach_samples(tokenbudget, model, study)
    settings = tokenbudget.settings
    options = settings.of_eval(ErrorOptions)
    try:
        return prepare(
            study,
            annotations_folder(settings.reports, study.task.name),
            dict(options.error_samples),
            options.controls,
            seed=settings.seed,
            others=study.sample_study,
        )
    except AnnotationError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def errors(tokenbudget: Session, study: Study, prepared: Prepared) -> ErrorReport:
    """The errors that were picked for annotation, and what annotators said about them."""
    from pytest_tokenbudget.studies.errors.analysis import errors_of
    from pytest_tokenbudget.studies.errors.options import ErrorOptions

    settings = tokenbudget.settings
    options = settings.of_eval(ErrorOptions)
    return errors_of(study, options.annotations, options.error_samples, settings.reports)
