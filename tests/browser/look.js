/* What one page tells of itself; run in the page, which is as wide as a telephone. */
async () => {
  await document.fonts.ready;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const start = (element) => element.outerHTML.slice(0, 80);
  const scrolls = (element) =>
    /auto|scroll/.test(getComputedStyle(element).overflowX)
    && element.scrollWidth > element.clientWidth + 1;
  const reached = (element) =>
    element.tabIndex >= 0 || element.querySelector("a, button, [tabindex='0']");
  // Those far from the screen tell nothing of their parts otherwise.
  const laidOut = (elements) => {
    elements.forEach((e) => { e.style.contentVisibility = "visible"; });
    return elements;
  };
  return {
    theme: document.documentElement.dataset.theme,
    width: document.scrollingElement.scrollWidth,
    version: all(".extra_footer").map((e) => e.textContent.trim()).join(),
    // what scrolls sideways, and no key does it
    stuck: all("main *").filter((e) => scrolls(e) && !reached(e)).map(start),
    // paragraphs that cut off a part of themselves: their boxes have a small margin
    clipped: laidOut(all("main p")
        .filter((e) => getComputedStyle(e).contentVisibility === "auto"))
      .filter((e) => e.scrollWidth > e.clientWidth + 8
        || e.scrollHeight > e.clientHeight + 8).map(start),
    // captions that end outside of the screen, as the table does that scrolls
    cut: all("main table > caption")
      .filter((e) => e.getBoundingClientRect().right > innerWidth).map(start),
    // names in cells that may be broken anywhere
    broken: all("main td code")
      .filter((e) => getComputedStyle(e).overflowWrap !== "normal").map(start),
    // images without words; a thumbnail stands beside the title of its page
    mute: all("main img").filter((e) => !e.alt.trim() && !e.src.includes("_thumb."))
      .map(start),
    // icons that the font of the site does not hold
    blank: all("i[class*='fa-']")
      .filter((e) => getComputedStyle(e, "::before").content === "none").map(start),
    // formulas that somebody who copies one would not get as TeX
    without_tex: all(".katex").filter((e) =>
      !e.querySelector("annotation[encoding='application/x-tex']")).map(start),
    // numbered equations that no link leads to
    unlinked: all(".eqno").filter((e) => {
      const link = e.querySelector("a.headerlink")?.getAttribute("href");
      return !/^\((\d+\.)?\d+\)/.test(e.textContent) || !link || !document.querySelector(link);
    }).map(start),
    // the page and all that came with it, in bytes as they were sent
    sent: ["navigation", "resource"].flatMap((kind) =>
      performance.getEntriesByType(kind).map((e) =>
        ({ address: e.name, kind: e.initiatorType, bytes: e.encodedBodySize }))),
  };
}
