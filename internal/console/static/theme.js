// Applies the choice between light and dark before the page is drawn. Without a
// choice the page looks as the system does.
"use strict";
(() => {
  let choice = null;
  try {
    choice = localStorage.getItem("culvert-theme");
  } catch {
    // Storage is off: the system decides.
  }
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
