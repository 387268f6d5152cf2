/* Hovering or focusing a reference shows the equation, term, claim or source it names.
   Escape closes the preview; the pointer can move onto it (WCAG 1.4.13). */
(() => {
  "use strict";
  const KINDS = ["equation-", "term-", "claim-"];
  const DELAY = 150; // milliseconds, so that a pointer that passes by opens nothing
  const box = document.createElement("div");
  box.id = "preview";
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  let shownFor = null;
  let timer = 0;

  /** The content of the preview of a link, or null. */
  function content(link) {
    if (link.dataset.source) {
      const paragraph = document.createElement("p");
      paragraph.textContent = link.dataset.source;
      return paragraph;
    }
    const id = decodeURIComponent(link.hash.slice(1));
    if (!KINDS.some((kind) => id.startsWith(kind))) return null;
    const template = document.getElementById("previews");
    const embedded = template &&
      [...template.content.children].find((part) => part.dataset.preview === id);
    if (embedded) return embedded.cloneNode(true);
    const here = link.pathname === location.pathname && document.getElementById(id);
    if (!here) return null;
    // Of a section, such as that of a claim, its heading is enough.
    const shown = here.tagName === "SECTION" ? here.querySelector("h1, h2, h3") : here;
    const copy = shown.cloneNode(true);
    // A term is followed by its definition.
    const whole = document.createElement("div");
    whole.append(copy);
    if (copy.tagName === "DT" && here.nextElementSibling) {
      whole.append(here.nextElementSibling.cloneNode(true));
    }
    return whole;
  }

  function show(link) {
    const found = content(link);
    if (!found) return;
    for (const part of [found, ...found.querySelectorAll("*")]) {
      part.removeAttribute("id"); // an ID is unique on a page
      part.removeAttribute("tabindex");
    }
    found.querySelectorAll(".headerlink").forEach((part) => part.remove());
    box.replaceChildren(found);
    box.hidden = false;
    shownFor = link;
    link.setAttribute("aria-describedby", box.id);
    const at = link.getBoundingClientRect();
    const room = document.documentElement.clientWidth - box.offsetWidth - 8;
    box.style.left = `${scrollX + Math.max(8, Math.min(at.left, room))}px`;
    const above = at.top > box.offsetHeight + 8 && at.bottom + box.offsetHeight > innerHeight;
    box.style.top = `${scrollY + (above ? at.top - box.offsetHeight - 4 : at.bottom + 4)}px`;
  }

  function hide() {
    clearTimeout(timer);
    box.hidden = true;
    shownFor?.removeAttribute("aria-describedby");
    shownFor = null;
  }

  function later(action) {
    clearTimeout(timer);
    timer = setTimeout(action, DELAY);
  }

  const linkOf = (event) => event.target.closest?.("main article a.internal[href*='#']");

  addEventListener("DOMContentLoaded", () => {
    document.body.append(box);
    // The title of a citation is its source: shown for the keyboard, too.
    document.querySelectorAll('main a[href*="references.html#"][title]').forEach((link) => {
      link.dataset.source = link.title;
      link.removeAttribute("title");
    });
    document.addEventListener("pointerover", (event) => {
      if (event.pointerType === "touch") return;
      const link = linkOf(event);
      if (link && link !== shownFor) later(() => { hide(); show(link); });
      else if (link || box.contains(event.target)) clearTimeout(timer);
      else if (shownFor) later(hide);
    });
    document.addEventListener("focusin", (event) => {
      const link = linkOf(event);
      hide();
      if (link?.matches(":focus-visible")) show(link);
    });
    document.addEventListener("focusout", hide);
    addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  });
})();
