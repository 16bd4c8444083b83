"""Prediction: which change will open a window, for how long, at what cost, and what prevents it.

`engine.predict` plays a change through on a model of Kubernetes, the gateway and the app;
`rules.inspect` looks for what is wrong in the objects themselves; `review.review` puts the two
together for one Service.
"""
