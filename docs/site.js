// A table that is wider than its frame is scrolled with the keyboard, too.
addEventListener("load", () => document.querySelectorAll(".md-typeset__scrollwrap").forEach((frame) => { frame.tabIndex = 0; }));
