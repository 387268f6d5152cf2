/* The order of search results: pages that explain a term come before pages that use it,
   and a result that leads into a page names the section. Sphinx reads this file as its
   setting html_search_scorer, so all of its scores are given here. */
"use strict";
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  /** What a score is multiplied by, for the first pattern that the name of a page matches. */
  weights: [
    [/^(rnn|positions|attention|diffusion)\w*$/, 4],
    [/^gallery\/\d.*\/plot_/, 3],
    [/^(installation|study|teaching|notation|verification)$/, 2],
    [/^verification/, 0.5],
    [/^(api|gallery|reproducing|benchmarks|references|changelog|exercises|solutions|figures)/, 0.2],
  ],

  score(result) {
    const [page, title, anchor, , score] = result;
    const section = anchor && Scorer.sections()[`${page}${anchor}`];
    if (section && section !== title && !title.endsWith(section)) {
      result[1] = `${title} › ${section}`;
    }
    const [, weight] = Scorer.weights.find(([name]) => name.test(page)) ?? [null, 1];
    return score * weight;
  },

  /** The headings of all pages by their address. */
  sections() {
    if (!Scorer.headings) {
      Scorer.headings = {};
      const { alltitles, docnames } = Search._index;
      for (const [heading, places] of Object.entries(alltitles)) {
        for (const [page, id] of places) {
          if (id) Scorer.headings[`${docnames[page]}#${id}`] = heading;
        }
      }
    }
    return Scorer.headings;
  },
};

// Excerpts show a formula as it is drawn, without its copy in MathML.
addEventListener("DOMContentLoaded", () => {
  const original = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll(".katex-mathml, .eqno, .claim-badge, template").forEach(
      (part) => part.remove());
    return original(page.documentElement.outerHTML, anchor);
  };
});
