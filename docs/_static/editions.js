"use strict";
/* The words of the scripts in the language of the page: a message, with values in the
   places that are named in braces. The Chinese edition brings the table `wording`; the
   messages are collected by the name of this function. */
function tr(message, values = {}) {
  const text = (typeof wording === "object" && wording[message]) || message;
  return text.replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
}

/* Sphinx makes a function of a text to find the plural form, which the policy of the pages
   refuses. Chinese has one form; pages in English call nothing here. */
Documentation.addTranslations = ({ messages, locale }) => {
  Object.assign(Documentation.TRANSLATIONS, messages);
  Documentation.PLURAL_EXPR = () => 0;
  Documentation.LOCALE = locale;
};

/* The link to the other edition leads to the same place, and to the same query. */
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a.edition");
  if (!link) return;
  link.hash = location.hash;
  link.search = location.search;
});
