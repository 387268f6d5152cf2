"""Live figures: recorded networks that run in the reader's browser.

The directive ``live-figure`` (:mod:`~dian_sphinx.live.figure`) places one: ``reader``
(a recurrent network reads an image), ``attention`` (a transformer reads one),
``denoise`` (images from noise), or ``spot`` (of two results, one is computed by code
with a bug). A page loads nothing of a network until its button is pressed. Before that,
without JavaScript and on paper, it shows a recorded result, or the content of the
directive.

Two processes share this package:

- The process of Sphinx imports no torch. It knows which files the browser needs and
  whether they are up to date (``kept``), copies them into the site (``site``), and
  writes the HTML (``figure``, ``spot``).
- ``python -m dian_sphinx.live.make`` makes the files that are missing or out of date.
  Only this process imports ``reader``, ``attention``, ``denoise``, ``unet_export``,
  ``images`` and ``puzzle_results``.
"""
