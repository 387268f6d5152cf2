/* The link to the other edition leads to the same place, and to the same query. */
"use strict";
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a.edition");
  if (!link) return;
  link.hash = location.hash;
  link.search = location.search;
});
