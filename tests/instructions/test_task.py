from keylm.instructions.task import Task


def test_the_topic_is_found_in_any_case_and_layout() -> None:
    task = Task([], "green olives")
    assert all(map(task.names_topic, ["Green olives!", "GREEN OLIVES", "Some green\nolives."]))
    assert not any(map(task.names_topic, ["Olives are green.", "green", ""]))
    assert not Task([], None).names_topic("green olives")
