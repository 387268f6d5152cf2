"""The search in Chinese: single characters and pairs, so that it needs no dictionary.

Sphinx's own search for Chinese names a stemmer that does not exist, and never cuts a
query into words.
"""

import re

from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese

HAN = re.compile(r"[\u3400-\u9fff]+")
SPLIT_QUERY = r"""
function splitQuery(query) {
  const han = /\p{Script=Han}/u, found = [];
  const runs = /\p{Script=Han}+|(?:(?!\p{Script=Han})[\p{L}\p{N}_])+/gu;
  for (const run of query.match(runs) || []) {
    if (!han.test(run) || run.length < 2) found.push(run);
    else for (let i = 0; i + 1 < run.length; i++) found.push(run.slice(i, i + 2));
  }
  return found;
}"""


class SearchHan(SearchChinese):
    """Words in Latin letters as they are; of Chinese, each character and each pair."""

    language_name = "English"  # whose stemmer exists
    js_splitter_code = SPLIT_QUERY

    def split(self, text: str) -> list[str]:
        """Cut a text into the words of the index.

        >>> SearchHan({}).split("用 softmax 计算")
        ['softmax', '用', '计', '算', '计算']
        """
        found = self.latin1_letters.findall(text)
        self.latin_terms.update(found)
        for run in HAN.findall(text):
            found += run
            found += [run[i : i + 2] for i in range(len(run) - 1)]
        return found

    def stem(self, word: str) -> str:
        """Return the stem of a word in Latin letters."""
        return word if HAN.match(word) else super().stem(word)

    def word_filter(self, word: str) -> bool:
        """Keep a single character only if it is Chinese."""
        return len(word) > 1 or bool(HAN.match(word))


def connect(app: Sphinx) -> None:
    """Take the place of Sphinx's own."""
    app.add_search_language(SearchHan)
