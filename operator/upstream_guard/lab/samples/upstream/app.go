package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	healthPath = "/healthz"
	// More than any gateway's default limit for response headers (nginx one page, HAProxy 16 KiB,
	// Envoy 60 KiB, Go's client, and so Caddy and Traefik, 10 MiB).
	oversizedHeaderBytes = 11 << 20
	listenRetry          = 20 * time.Millisecond
	// What a server that speaks only HTTP/2 sends to who does not begin as HTTP/2 does: SETTINGS, and
	// GOAWAY with PROTOCOL_ERROR (RFC 9113, 3.4 and 5.4.1).
	h2Greeting = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" +
		"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x01"
)

// oversizedAnswer is written as it is: made anew for each request it would cost more than a small
// machine has, and the app would be slow, which is another failure.
var oversizedAnswer = sync.OnceValue(func() []byte {
	return []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Large: " +
		strings.Repeat("x", oversizedHeaderBytes) + "\r\n\r\nok")
})

// app is the HTTP server that fails on command.
type app struct {
	cfg      config
	state    *state
	requests atomic.Int64
	serving  atomic.Int64 // Unix microseconds since which it answers requests, 0 before
	tls      *tls.Config  // nil where it speaks HTTP in clear

	mu       sync.Mutex
	server   *http.Server
	listener net.Listener
	stopped  bool // no new listener from now on: SIGTERM was seen
}

func newApp(cfg config, state *state) (*app, error) {
	a := &app{cfg: cfg, state: state}
	if !cfg.tls {
		return a, nil
	}
	var err error
	a.tls, err = tlsConfig(cfg.name, state)
	return a, err
}

// begin listens, and from then on opens and closes the listener as the fault asks for.
func (a *app) begin() {
	if a.cfg.lie > 0 {
		// Before it listens, or the first requests would see the truth.
		if err := a.state.set(faultLyingReady, 0, a.cfg.lie); err != nil {
			log.Fatal(err)
		}
	}
	for {
		fault, _, changed := a.state.current()
		if fault == faultRefuse {
			a.stopServer()
		} else {
			a.startServer()
			a.keepConnections(a.cfg.keepAlive && !ofHandshake(fault))
		}
		if fault == faultNone {
			a.serving.CompareAndSwap(0, time.Now().UnixMicro())
		}
		<-changed
	}
}

func (a *app) startServer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listener != nil || a.stopped {
		return
	}
	listener, err := a.listen()
	if err != nil {
		log.Fatal(err)
	}
	a.listener = listener
	a.server = &http.Server{
		Handler:           http.HandlerFunc(a.serve),
		ReadHeaderTimeout: time.Minute,
		ConnState:         a.idleCloser(),
	}
	log.Printf("listening on %s", listener.Addr())
	go func(server *http.Server) {
		err := server.Serve(listener)
		if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			log.Fatal(err)
		}
	}(a.server)
}

// listen opens the app's port. The address may be taken for a moment after a close.
func (a *app) listen() (listener net.Listener, err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", a.cfg.port))
		if err == nil && a.tls != nil {
			return securedListener{listener, a.state, a.tls}, nil
		}
		if err == nil {
			return listener, nil
		}
		time.Sleep(listenRetry)
	}
	return nil, err
}

// keepConnections says whether connections are kept after an answer; if not, idle ones are closed.
func (a *app) keepConnections(keep bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server != nil {
		a.server.SetKeepAlivesEnabled(keep)
	}
}

// stopServer closes the listener and every connection: nobody is home, but the process lives.
func (a *app) stopServer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server != nil {
		a.server.Close()
	}
	a.server, a.listener = nil, nil
}

// closeListener refuses new connections and goes on serving the open ones.
func (a *app) closeListener() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.listener != nil {
		a.listener.Close()
	}
}

// shutdown stops as net/http means it: no new connections, idle ones closed, requests finished.
func (a *app) shutdown(ctx context.Context) error {
	a.mu.Lock()
	server := a.server
	a.stopped = true
	a.mu.Unlock()
	if server == nil {
		return nil
	}
	return server.Shutdown(ctx)
}

func (a *app) listening() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.listener != nil && !a.stopped
}

// idleCloser closes connections soon after they fall idle, while the fault asks for it. It does not
// look whether a request is on its way: that race is the fault.
func (a *app) idleCloser() func(net.Conn, http.ConnState) {
	var idle sync.Map // net.Conn → *time.Timer
	return func(conn net.Conn, now http.ConnState) {
		if timer, ok := idle.LoadAndDelete(conn); ok {
			timer.(*time.Timer).Stop()
		}
		fault, _, _ := a.state.current()
		if now == http.StateIdle && fault == faultCloseIdleEarly {
			idle.Store(conn, time.AfterFunc(a.cfg.idleClose, func() { conn.Close() }))
		}
	}
}

func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	fault, delay, changed := a.state.current()
	health := r.URL.Path == healthPath
	if fault == faultLyingReady && health {
		fault = faultNone
	}
	switch fault {
	case faultReset, faultLyingReady:
		hijack(w, func(conn net.Conn) { reset(conn) })
	case faultResetInBody:
		hijack(w, func(conn net.Conn) {
			send(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart of the body")
			// The head must have left before the reset overtakes it.
			time.Sleep(20 * time.Millisecond)
			reset(conn)
		})
	case faultEarlyClose:
		hijack(w, func(conn net.Conn) { conn.Close() })
	case faultMalformed:
		hijack(w, func(conn net.Conn) {
			send(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Bad\x00Header: 1\r\n\r\nok")
			conn.Close()
		})
	case faultMalformedStatus:
		hijack(w, func(conn net.Conn) {
			send(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			conn.Close()
		})
	case faultOversizedHeader:
		hijack(w, func(conn net.Conn) {
			// An error here is a gateway that has read enough.
			_, _ = conn.Write(oversizedAnswer())
			conn.Close()
		})
	case faultH2Only:
		hijack(w, func(conn net.Conn) {
			send(conn, h2Greeting)
			conn.Close()
		})
	case faultHang:
		a.hang(w, r, changed)
	case faultSlow:
		a.answerLate(w, r, delay)
	case faultError:
		a.answer(w, http.StatusInternalServerError)
	case faultUnavailable:
		a.answer(w, http.StatusServiceUnavailable)
	case faultUnready:
		if health {
			a.answer(w, http.StatusServiceUnavailable)
			return
		}
		a.answer(w, http.StatusOK)
	default:
		if health {
			a.answer(w, http.StatusOK)
			return
		}
		a.answerLate(w, r, a.cfg.responseDelay)
	}
}

func (a *app) answer(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error here is a client that went away: not the app's business.
	_ = json.NewEncoder(w).Encode(map[string]any{"pod": a.cfg.name, "status": status})
}

func (a *app) answerLate(w http.ResponseWriter, r *http.Request, delay time.Duration) {
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
	}
	a.answer(w, http.StatusOK)
}

// hang answers nothing until the client gives up. When the fault is over, the request is answered late,
// as by an app that waited for something. (Dropped, it would be another failure, and at the gateway the
// only one that is counted.)
func (a *app) hang(w http.ResponseWriter, r *http.Request, changed <-chan struct{}) {
	select {
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-changed:
		a.answer(w, http.StatusOK)
	}
}

// hijack takes the connection out of net/http's hands.
func hijack(w http.ResponseWriter, do func(net.Conn)) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Printf("cannot take the connection over: %v", err)
		return
	}
	do(conn)
}

// reset ends the connection with RST instead of FIN.
func reset(conn net.Conn) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func send(conn net.Conn, text string) {
	// The client may be gone; the fault is done either way.
	_, _ = conn.Write([]byte(text))
}
