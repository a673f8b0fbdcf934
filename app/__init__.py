"""The dashboard's shell: what pages share. Imports streamlit and the Engine; knows no SQL, no torch and no threads."""
