"""The words and files: lines on the terminal, a JSON file, a figure."""

from pytest_tokenbudget.report.files import write_json
from pytest_tokenbudget.report.json_files import file_stem, header
from tokenbudget_lengths.analysis import analyse


def length_lines(study, run, width):
    points = analyse(study) if study.complete else ()
    return [
        f"lengths: {point.ended} of {point.answers} answers end within {point.budget} tokens"
        for point in points
    ]


def write_lengths(study, run, directory):
    from pytest_tokenbudget.report.drawing import save_study_figure

    points = analyse(study) if study.complete else ()
    record = {**header(study, run, "tokenbudget-lengths/1"), "points": points}
    files = [write_json(directory / "results" / f"lengths_{file_stem(study)}.json", record)]
    if points:
        title = "answers that end within a limit: {}"
        files += save_study_figure(lambda: draw(study, points), study, directory, "lengths", title)
    return files


def draw(study, points):
    from pytest_tokenbudget.report.drawing import new_figure, percent_axis, study_texts

    figure = new_figure((6.8, 4.0))
    axes = figure.add_subplot()
    axes.plot([point.budget for point in points], [point.share for point in points], marker="o")
    axes.set_xlabel("limit in output tokens")
    percent_axis(axes, "answers that end within it")
    study_texts(figure, axes, study, "Lengths of answers")
    return figure
