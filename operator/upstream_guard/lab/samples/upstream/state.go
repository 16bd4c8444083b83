package main

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"
)

// What the app does with a request. Each is one way for a gateway to get a bad answer.
const (
	faultNone            = "none"
	faultRefuse          = "refuse"
	faultReset           = "reset-before-headers"
	faultResetInBody     = "reset-in-body"
	faultEarlyClose      = "early-close"
	faultMalformed       = "malformed"
	faultMalformedStatus = "malformed-status"
	faultOversizedHeader = "oversized-header"
	faultH2Only          = "h2-only"
	faultHang            = "hang"
	faultSlow            = "slow"
	faultError           = "error"
	faultUnavailable     = "unavailable"
	faultCloseIdleEarly  = "close-idle-early"
	faultLyingReady      = "lying-ready"
	faultUnready         = "unready"
	// Of an app that speaks TLS: it refuses every handshake, or has forgotten TLS.
	faultTLSRefuse = "tls-refuse"
	faultTLSPlain  = "tls-plain"
)

// What the app does on SIGTERM.
const (
	sigExit          = "exit-on-sigterm"
	sigGraceful      = "graceful"
	sigIgnore        = "ignore-sigterm"
	sigStopListening = "stop-listening-on-sigterm"
	sigLinger        = "linger-on-sigterm"
)

var faults = map[string]string{
	faultNone:            faultNone,
	faultRefuse:          faultRefuse,
	faultReset:           faultReset,
	faultResetInBody:     faultResetInBody,
	faultEarlyClose:      faultEarlyClose,
	faultMalformed:       faultMalformed,
	faultMalformedStatus: faultMalformedStatus,
	faultOversizedHeader: faultOversizedHeader,
	faultH2Only:          faultH2Only,
	faultHang:            faultHang,
	faultSlow:            faultSlow,
	faultError:           faultError,
	faultUnavailable:     faultUnavailable,
	faultCloseIdleEarly:  faultCloseIdleEarly,
	faultLyingReady:      faultLyingReady,
	faultUnready:         faultUnready,
	faultTLSRefuse:       faultTLSRefuse,
	faultTLSPlain:        faultTLSPlain,
	// Short names.
	"reset": faultReset,
	"lie":   faultLyingReady,
}

var sigModes = map[string]bool{
	sigExit: true, sigGraceful: true, sigIgnore: true, sigStopListening: true, sigLinger: true,
}

// state is what the app has been told to do. A mode concerns either requests or SIGTERM; setting
// one leaves the other as it is, and `none` heals the first.
type state struct {
	mu       sync.Mutex
	fault    string
	signal   string
	delay    time.Duration
	changed  chan struct{} // closed, and replaced, when the fault changes
	revision int
}

func newState(cfg config) (*state, error) {
	s := &state{fault: faultNone, signal: sigExit, changed: make(chan struct{})}
	for _, mode := range cfg.faults {
		if err := s.set(strings.TrimSpace(mode), time.Second, 0); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// set takes a mode; a positive `lasting` heals it after that time unless another was set meanwhile.
func (s *state) set(mode string, delay, lasting time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sigModes[mode] {
		s.signal = mode
		return nil
	}
	fault, ok := faults[mode]
	if !ok {
		return fmt.Errorf("unknown mode %q; it is one of %s", mode, strings.Join(modeNames(), ", "))
	}
	s.change(fault, delay)
	if lasting > 0 {
		revision := s.revision
		time.AfterFunc(lasting, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.revision == revision {
				s.change(faultNone, 0)
			}
		})
	}
	return nil
}

func (s *state) change(fault string, delay time.Duration) {
	s.fault, s.delay = fault, delay
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
}

// current returns the fault, the delay of `slow`, and a channel closed when the fault changes.
func (s *state) current() (string, time.Duration, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault, s.delay, s.changed
}

func (s *state) onSignal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signal
}

func modeNames() []string {
	names := []string{}
	for name := range faults {
		names = append(names, name)
	}
	for name := range sigModes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
