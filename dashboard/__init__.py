"""The review dashboard: a Streamlit app, and the HTTP routes that its pages call. Imports anomaly,
never torch.
"""
