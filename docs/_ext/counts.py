"""The role ``count``: how many there are of something, when the site is built."""

from docutils import nodes
from recorded import names
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

log = logging.getLogger(__name__)


class Count(SphinxRole):
    """The number of ``claims``, of planted ``bugs``, or of recorded ``runs``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number as text."""
        counted = counts(self.env)
        if self.text not in counted:
            log.warning(
                "count %s: expected one of %s",
                self.text,
                ", ".join(counted),
                location=self.get_location(),
            )
            return [nodes.problematic(self.rawtext, self.text)], []
        self.env.note_dependency(self.env.claims_file)
        return [nodes.inline(self.rawtext, str(counted[self.text]))], []


def counts(env: BuildEnvironment) -> dict[str, int]:
    """Count claims that hold, planted bugs that were caught, and recorded runs."""
    claims = env.claims.values()
    return {
        "claims": sum(one["passed"] for one in claims),
        "bugs": sum(m["caught"] for one in claims for m in one["mutants"]),
        "runs": len(names()),
    }


def setup(app: Sphinx) -> dict:
    """Register the role."""
    app.setup_extension("claims")
    app.add_role("count", Count())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
