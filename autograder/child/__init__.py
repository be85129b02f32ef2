"""What runs in the student's process. Nothing here is trusted, and nothing here imports the rest.

The warm process loads this folder under another name, so modules import each other relatively.
"""
