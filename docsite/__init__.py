"""Builds the site of the documentation: ``make docs``.

``assemble`` collects the pages of ``docs/`` and some files beside it, and inserts what
``reference``
and ``models`` generate from the code and from the models' cards. Zensical makes the site of them.
"""
