"""Check your own implementation against the report, and name the mistake it makes.

Every kind of function has a *contract*: its arguments, the conventions on which right
functions differ, and the properties that hold for all of them. A wrong function is
compared with the library under each mutant of the claims.
"""

from dian.check.cases import parametrize_with_checks
from dian.check.checker import check

__all__ = ["check", "parametrize_with_checks"]
