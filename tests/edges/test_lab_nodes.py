"""What is forgotten of connections between two measurements, and what is not."""

from upstream_guard.lab.nodes import tracked_pods

TABLE = """\
tcp 6 73 TIME_WAIT src=198.18.0.1 dst=198.19.44.71 sport=54474 dport=80 src=198.18.102.3 dst=198.18.0.2 sport=8080 dport=55917 [ASSURED] mark=0 use=1
tcp 6 9 SYN_SENT src=198.18.0.1 dst=198.19.44.71 sport=54476 dport=80 [UNREPLIED] src=198.18.101.9 dst=198.18.0.2 sport=8080 dport=5 mark=0 use=1
tcp 6 86399 ESTABLISHED src=198.18.102.2 dst=198.19.0.1 sport=34114 dport=443 src=198.18.0.1 dst=198.18.102.2 sport=6443 dport=34114 [ASSURED] mark=0 use=1
tcp 6 73 TIME_WAIT src=198.18.0.1 dst=198.19.44.71 sport=54475 dport=80 src=198.18.102.3 dst=198.18.0.2 sport=8080 dport=55918 [ASSURED] mark=0 use=1
"""


def test_pods_that_answer_for_services_are_found_and_the_api_server_is_none() -> None:
    assert tracked_pods(TABLE) == ("198.18.101.9", "198.18.102.3")
    assert tracked_pods("") == ()
