"""The one error that a user is meant to see: a line that says what is wrong and what to do."""


class UserError(ValueError):
    """Bad input (a file, an option, a value). Its text names it and the remedy, in one line."""
