"""The webhook's own certificate authority and serving certificate: what to do when, and how.

`plan_certs` decides and is pure; `carry_out` makes keys. Life of the two:

* The serving certificate lives 90 days and is replaced after two thirds of them.
* The authority lives two years. After two thirds a successor is *prepared*: published in the CA
  bundle, not used. A day later, when every API server trusts it, it is *promoted*: it signs the
  serving certificate, and its predecessor stays in the bundle until the next replacement. So there
  is no moment at which a running replica serves a certificate that nobody trusts.
"""

import base64
import binascii
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVING_DAYS: Final = 90
CA_DAYS: Final = 730
OVERLAP: Final = timedelta(days=1)
"""How long a new authority is published before it signs."""
BACKDATE: Final = timedelta(hours=1)
"""Clocks of a cluster's machines differ."""


class CertAction(StrEnum):
    """What is to be done about the certificates."""

    KEEP = "keep"
    CREATE = "create"
    """Everything anew; nothing of the old can be used."""
    REISSUE = "reissue"
    """A new serving certificate from the present authority."""
    PREPARE_CA = "prepare-ca"
    """Publish a successor of the authority."""
    PROMOTE_CA = "promote-ca"
    """Let the published successor sign."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate with its key, both PEM."""

    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class CertBundle:
    """All that the Secret holds, PEM."""

    cert: bytes
    key: bytes
    ca: Authority
    next_ca: Authority | None = None
    old_ca: bytes = b""

    @property
    def ca_bundle(self) -> bytes:
        """Every authority that a client should trust: the present one, its successor, the last."""
        following = self.next_ca.cert if self.next_ca else b""
        return self.ca.cert + following + self.old_ca

    def to_data(self) -> dict[str, str]:
        """The `data` of a Secret of type `kubernetes.io/tls`."""
        fields = {
            "tls.crt": self.cert,
            "tls.key": self.key,
            "ca.crt": self.ca.cert,
            "ca.key": self.ca.key,
            "old-ca.crt": self.old_ca,
        }
        if self.next_ca:
            fields |= {"next-ca.crt": self.next_ca.cert, "next-ca.key": self.next_ca.key}
        return {name: base64.b64encode(pem).decode() for name, pem in fields.items() if pem}

    @classmethod
    def from_data(cls, data: Mapping[str, str]) -> Self | None:
        """Read the `data` of a Secret; None where a part is missing or not Base64."""
        try:
            fields = {name: base64.b64decode(text, validate=True) for name, text in data.items()}
            following = None
            if "next-ca.crt" in fields:
                following = Authority(fields["next-ca.crt"], fields["next-ca.key"])
            return cls(
                cert=fields["tls.crt"],
                key=fields["tls.key"],
                ca=Authority(fields["ca.crt"], fields["ca.key"]),
                next_ca=following,
                old_ca=fields.get("old-ca.crt", b""),
            )
        except (KeyError, TypeError, binascii.Error):
            return None


@dataclass(frozen=True, slots=True)
class CertPlan:
    """What to do now, why, and when to look again (Unix seconds) if nothing else changes."""

    action: CertAction
    reason: str
    due: float


def plan_certs(bundle: CertBundle | None, dns_names: Sequence[str], now: float) -> CertPlan:
    """Decide whether the certificates in a Secret are good.

    Args:
        bundle: The content of the Secret; None where there is none that can be read.
        dns_names: Host names and IP addresses under which the API server calls the webhook.
        now: Unix seconds.

    Returns:
        The plan. After a `KEEP`, `due` is when the next change is expected.
    """
    if bundle is None:
        return CertPlan(CertAction.CREATE, "there is no usable Secret", now)
    authority, trouble = _examine(bundle.ca.cert, bundle.ca.key, now)
    if authority is None:
        return CertPlan(CertAction.CREATE, f"the authority {trouble}", now)
    serving, trouble = _examine(bundle.cert, bundle.key, now)
    trouble = trouble or (_misfit(serving, authority, dns_names) if serving else "")
    if serving is None or trouble:
        return CertPlan(CertAction.REISSUE, f"the serving certificate {trouble}", now)
    rotation = _plan_authority(bundle, authority, now)
    if rotation.action is not CertAction.KEEP:
        return rotation
    renewal = _two_thirds(serving)
    if now >= renewal:
        return CertPlan(CertAction.REISSUE, "two thirds of the serving certificate's life", now)
    return CertPlan(CertAction.KEEP, "all is well", min(renewal, rotation.due))


def carry_out(
    plan: CertPlan, bundle: CertBundle | None, dns_names: Sequence[str], now: float
) -> CertBundle:
    """Make the keys and certificates that a plan asks for.

    Args:
        plan: From `plan_certs` for the same `bundle` and `dns_names`.
        bundle: What the Secret holds.
        dns_names: As for `plan_certs`.
        now: Unix seconds.

    Returns:
        What the Secret shall hold.
    """
    if plan.action is CertAction.CREATE or bundle is None:
        authority = new_authority(now)
        return CertBundle(*issue(authority, dns_names, now), ca=authority)
    if plan.action is CertAction.PREPARE_CA:
        return replace(bundle, next_ca=new_authority(now))
    if plan.action is CertAction.PROMOTE_CA and bundle.next_ca:
        cert, key = issue(bundle.next_ca, dns_names, now)
        return CertBundle(cert, key, ca=bundle.next_ca, old_ca=bundle.ca.cert)
    if plan.action is CertAction.REISSUE:
        cert, key = issue(bundle.ca, dns_names, now)
        # A predecessor has nothing left to vouch for once two certificates in a row are ours.
        return replace(bundle, cert=cert, key=key, old_ca=b"")
    return bundle


def new_authority(now: float) -> Authority:
    """Make a self-signed ECDSA P-256 authority that may sign end certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own: two authorities of one name in a bundle confuse verifiers.
    name = _name(f"upstream-guard webhook CA {serial:x}"[:64])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key, now, CA_DAYS)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue(authority: Authority, dns_names: Sequence[str], now: float) -> tuple[bytes, bytes]:
    """Issue a serving certificate.

    Args:
        authority: Who signs.
        dns_names: Host names and IP addresses; the first becomes the common name.
        now: Unix seconds.

    Returns:
        Certificate and key, PEM.

    Raises:
        ValueError: `dns_names` is empty, or the authority's PEM cannot be read.
    """
    if not dns_names:
        raise ValueError("a serving certificate needs at least one name")
    issuer = x509.load_pem_x509_certificate(authority.cert)
    signer = _load_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    public = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _builder(_name(dns_names[0][:64]), issuer.subject, key, now, SERVING_DAYS)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general(dns_names)), critical=False)
        .add_extension(public, critical=False)
    )
    return _pem(builder.sign(signer, hashes.SHA256())), _key_pem(key)


def service_names(service: str, namespace: str) -> tuple[str, ...]:
    """Names under which an API server calls a Service's webhook."""
    return (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local")


def _examine(cert: bytes, key: bytes, now: float) -> tuple[x509.Certificate | None, str]:
    """The parsed certificate, or None and what is wrong with it or its key."""
    try:
        parsed = x509.load_pem_x509_certificate(cert)
        public = _load_key(key).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None, "cannot be read"
    if parsed.public_key() != public:
        return None, "does not belong to its key"
    if not parsed.not_valid_before_utc.timestamp() <= now < parsed.not_valid_after_utc.timestamp():
        return None, "is not valid now"
    return parsed, ""


def _misfit(serving: x509.Certificate, ca: x509.Certificate, dns_names: Sequence[str]) -> str:
    try:
        serving.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return "was not issued by the authority"
    try:
        names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "names no host"
    missing = [str(name.value) for name in _general(dns_names) if name not in names]
    return f"does not cover {', '.join(missing)}" if missing else ""


def _plan_authority(bundle: CertBundle, authority: x509.Certificate, now: float) -> CertPlan:
    renewal = _two_thirds(authority)
    if bundle.next_ca is None:
        if now >= renewal:
            return CertPlan(CertAction.PREPARE_CA, "two thirds of the authority's life", now)
        return CertPlan(CertAction.KEEP, "", renewal)
    following, trouble = _examine(bundle.next_ca.cert, bundle.next_ca.key, now)
    if following is None:
        return CertPlan(CertAction.PREPARE_CA, f"the next authority {trouble}", now)
    promotion = (following.not_valid_before_utc + BACKDATE + OVERLAP).timestamp()
    if now >= promotion:
        return CertPlan(CertAction.PROMOTE_CA, "the next authority is known everywhere", now)
    return CertPlan(CertAction.KEEP, "", promotion)


def _two_thirds(cert: x509.Certificate) -> float:
    life = cert.not_valid_after_utc - cert.not_valid_before_utc
    return (cert.not_valid_before_utc + life * 2 / 3).timestamp()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, days: int
) -> x509.CertificateBuilder:
    start = datetime.fromtimestamp(now, UTC) - BACKDATE
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in names]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return key


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
