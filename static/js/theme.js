// Before anything is shown: the theme that was chosen here last.
document.documentElement.dataset.theme = localStorage.getItem("spinexr.theme") ?? "dark";
