/* Who copies a formula gets its TeX. Without this script one would get it three times: as
   it is drawn, as MathML, and as the TeX that stands in the MathML. */
"use strict";
document.addEventListener("copy", (event) => {
  const selection = getSelection();
  if (!event.clipboardData || selection.isCollapsed) return;
  const range = selection.getRangeAt(0).cloneRange();
  const around = (node) => (node.closest ? node : node.parentElement)?.closest(".katex");
  // Half a formula has no TeX: the whole of it is copied.
  const first = around(range.startContainer), last = around(range.endContainer);
  if (first) range.setStartBefore(first);
  if (last) range.setEndAfter(last);
  const box = document.createElement("div");
  box.append(range.cloneContents());
  const formulas = box.querySelectorAll(".katex");
  if (!formulas.length) return;
  for (const formula of formulas) {
    const tex = formula.querySelector("annotation").textContent;
    const display = formula.querySelector("math").getAttribute("display") === "block";
    formula.replaceWith(display ? `\n$$${tex}$$\n` : `$${tex}$`);
  }
  // Only what is on the page has lines.
  box.style.cssText = "position: fixed; left: -100vw; white-space: pre-wrap";
  document.body.append(box);
  event.clipboardData.setData("text/plain", box.innerText.trim());
  box.remove();
  event.preventDefault();
});
