// Before anything is shown: the theme that was chosen here last.
document.documentElement.dataset.theme = "dark";
try {
  document.documentElement.dataset.theme = localStorage.getItem("spinexr.theme") ?? "dark";
} catch {
  // the browser keeps nothing
}
