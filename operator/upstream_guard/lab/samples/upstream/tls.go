package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"time"
)

// ofHandshake says whether a fault is of new connections, before any request: those that are open have to go.
func ofHandshake(fault string) bool { return fault == faultTLSRefuse || fault == faultTLSPlain }

// securedListener speaks TLS on each connection, unless it is told to have forgotten that.
type securedListener struct {
	net.Listener
	state  *state
	config *tls.Config
}

func (l securedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if fault, _, _ := l.state.current(); fault == faultTLSPlain {
		return conn, nil
	}
	return tls.Server(conn, l.config), nil
}

// tlsConfig has a certificate of its own, for a day, and refuses handshakes while the fault asks for it.
func tlsConfig(name string, state *state) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	made := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, made, made, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	own := tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	return &tls.Config{
		Certificates: []tls.Certificate{own},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if fault, _, _ := state.current(); fault == faultTLSRefuse {
				return nil, errors.New("told to refuse the handshake") // sent as an alert
			}
			return nil, nil // as it is
		},
	}, nil
}
