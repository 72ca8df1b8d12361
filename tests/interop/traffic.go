package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	requestLimit = 5 * time.Second
	pause        = time.Millisecond // between a client's requests, so that two cores suffice
	inRow        = 5                // answers of a kind that settle a client
)

// answer is what matters of a response.
type answer struct {
	status                  int
	origin, routes, gateway string // body; route configuration's version; `server` header
}

// traffic is the clients' shared record: which origins each generation of the configuration allows,
// what each client last saw, and everything that went wrong.
type traffic struct {
	mu       sync.Mutex
	legal    []allowance // by generation
	settled  int         // the generation that every client is known to have reached
	seen     []sighting  // by client
	requests int
	failures []string
	clients  sync.WaitGroup
}

// allowance is the origins that may answer in one generation, and those that may while it is on its way:
// the types of a snapshot arrive one by one, so new routes meet old endpoints and the reverse.
type allowance struct{ here, underway map[string]bool }

// sighting is a client's last answer, the newest generation published when it asked, and how often in a
// row it has been that answer in that generation.
type sighting struct {
	generation int
	answer     answer
	count      int
}

// publish opens a generation: from now on its origins may answer too, beside those of the settled one.
func (t *traffic) publish(legal allowance) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.legal = append(t.legal, legal)
}

// settle waits until every client has answers, asked for after the last publish, that hold; from then on
// an answer of an earlier generation is a failure.
func (t *traffic) settle(limit time.Duration, holds func(answer) bool) error {
	var waiting []string
	reached := func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		now := len(t.legal) - 1
		waiting = nil
		for id, s := range t.seen {
			if s.generation != now || s.count < inRow || !holds(s.answer) {
				waiting = append(waiting, fmt.Sprintf("client %d: %+v", id, s.answer))
			}
		}
		if waiting == nil {
			t.settled = now
		}
		return waiting == nil
	}
	if eventually(limit, reached) {
		return nil
	}
	return fmt.Errorf("no effect within %v: %v", limit, waiting)
}

func (t *traffic) begin() (settled, newest int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settled, len(t.legal) - 1
}

func (t *traffic) end(id, settled, newest int, a answer, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	if err != nil {
		t.failures = append(t.failures, fmt.Sprintf("client %d: %v", id, err))
		return
	}
	allowed := t.legal[settled].here[a.origin]
	for _, legal := range t.legal[settled+1:] {
		allowed = allowed || legal.underway[a.origin]
	}
	if a.status != http.StatusOK || !allowed {
		t.failures = append(t.failures, fmt.Sprintf(
			"client %d: %+v, where generations %d to %d allow %v", id, a, settled, len(t.legal)-1, t.legal[settled:]))
		return
	}
	last := &t.seen[id]
	if last.generation != newest || last.answer.routes != a.routes || last.answer.gateway != a.gateway {
		last.count = 0
	}
	*last = sighting{newest, a, last.count + 1}
}

func (t *traffic) failed() (int, []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests, t.failures
}

// start runs n clients until ctx ends, one request in flight each. Every fourth speaks HTTP/2.
func (t *traffic) start(ctx context.Context, n int, authority string) {
	t.seen = make([]sighting, n)
	for id := range n {
		c := client(&http1{authority: authority})
		if id%4 == 3 {
			c = newHTTP2(authority)
		}
		t.clients.Add(1)
		go func() {
			defer t.clients.Done()
			defer c.close()
			for ctx.Err() == nil {
				settled, newest := t.begin()
				a, err := c.get("/")
				t.end(id, settled, newest, a, err)
				time.Sleep(pause)
			}
		}()
	}
}

type client interface {
	get(path string) (answer, error)
	close()
}

// http1 is a keep-alive client that never retries: a connection the proxy closes without having said
// `connection: close` costs it a request, which net/http would hide.
type http1 struct {
	authority string
	conn      net.Conn
	reader    *bufio.Reader
	uses      int
}

func (c *http1) get(path string) (answer, error) {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.authority, requestLimit)
		if err != nil {
			return answer{}, err
		}
		c.conn, c.reader, c.uses = conn, bufio.NewReader(conn), 0
	}
	c.uses++
	a, reusable, err := c.exchange(path)
	if err != nil {
		err = fmt.Errorf("request %d of a connection: %w", c.uses, err)
	}
	if !reusable {
		c.close()
	}
	return a, err
}

func (c *http1) exchange(path string) (a answer, reusable bool, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(requestLimit)); err != nil {
		return answer{}, false, err
	}
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nhost: %s\r\n\r\n", path, c.authority); err != nil {
		return answer{}, false, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return answer{}, false, err
	}
	a, err = read(response)
	return a, err == nil && !response.Close, err
}

func (c *http1) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// http2 speaks HTTP/2 with prior knowledge over one connection.
type http2 struct {
	authority string
	transport *http.Transport
}

func newHTTP2(authority string) *http2 {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	return &http2{authority, &http.Transport{Protocols: protocols}}
}

func (c *http2) get(path string) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.authority+path, nil)
	if err != nil {
		return answer{}, err
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	if response.ProtoMajor != 2 {
		return answer{}, fmt.Errorf("answered in %s", response.Proto)
	}
	return read(response)
}

func (c *http2) close() { c.transport.CloseIdleConnections() }

func read(response *http.Response) (answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{
		status:  response.StatusCode,
		origin:  string(body),
		routes:  response.Header.Get(versionHeader),
		gateway: response.Header.Get("server"),
	}, err
}
