"use strict";
(() => {
  const list = document.getElementById("list");
  const cases = Array.from(list.children);
  const control = (id) => document.getElementById(id);
  const number = (card, key) => {
    const value = parseFloat(card.dataset[key]);
    return Number.isNaN(value) ? Infinity : value;
  };
  // What a case does not have comes last.
  const compare = (key) => {
    if (key === "name") return (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true });
    if (key === "worst") {
      return (a, b) => number(b, "errors") - number(a, "errors") || number(b, "warnings") - number(a, "warnings");
    }
    return (a, b) => number(a, key) - number(b, key);
  };
  const shown = (card) => {
    const text = control("find").value.trim().toLowerCase();
    const level = control("level").value;
    const kind = control("kind").value;
    const split = control("split") ? control("split").value : "";
    const errors = number(card, "errors");
    const warnings = number(card, "warnings");
    return (
      (!text || card.dataset.name.toLowerCase().includes(text) || card.dataset.patient.toLowerCase().includes(text)) &&
      (!level || (level === "error" ? errors > 0 : level === "warning" ? errors + warnings > 0 : errors + warnings === 0)) &&
      (!kind || card.dataset.kinds.split(" ").includes(kind)) &&
      (!split || card.dataset.split === split)
    );
  };
  const update = () => {
    const order = cases.slice().sort(compare(control("sort").value));
    list.append(...order);
    let count = 0;
    for (const card of order) {
      card.hidden = !shown(card);
      count += card.hidden ? 0 : 1;
    }
    control("count").textContent = `${count} of ${cases.length} cases`;
  };
  for (const element of document.querySelectorAll(".tools input, .tools select")) {
    element.addEventListener("input", update);
  }
  update();
})();
