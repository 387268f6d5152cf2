"""The one kind of error that a user of the report is meant to read."""


class DianError(Exception):
    """Something outside the code is wrong: a file, a record, an option, a device.

    Its message is one line that says what was expected, what was found and what to
    do. The command line prints that line alone. A wrong *argument* of a function is a
    :class:`ValueError` or a :class:`TypeError`, as everywhere in Python.
    """
