package main

import (
	"io"
	"net"
	"net/http"
)

// origin is a tiny HTTP/1.1 server that answers every request with its own name.
type origin struct {
	name string
	port uint32
}

// startOrigin serves name on a free loopback port until the program ends.
func startOrigin(name string) (origin, error) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return origin{}, err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	})
	go func() { _ = http.Serve(socket, handler) }()
	return origin{name: name, port: portOf(socket)}, nil
}

func portOf(socket net.Listener) uint32 {
	return uint32(socket.Addr().(*net.TCPAddr).Port)
}

// freePort finds a port nobody listens on. The proxy binds it a moment later.
func freePort() (uint32, error) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	return portOf(socket), nil
}
