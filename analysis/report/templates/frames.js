// A frame that is narrower than what it holds says so, and can be scrolled with the keyboard.
(() => {
  const look = new ResizeObserver((seen) => {
    for (const { target } of seen) {
      const isCut = target.scrollWidth > target.clientWidth + 1;
      target.classList.toggle("cut", isCut);
      if (isCut) target.tabIndex = 0;
    }
  });
  for (const frame of document.querySelectorAll(".scroll, .drawing, .e-scroll")) look.observe(frame);
})();
