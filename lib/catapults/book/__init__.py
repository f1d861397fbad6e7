"""The road from ``chapters/runs.yml`` to the rendered book: chapter -> runs -> execute -> stage -> build."""
