package main

import "net"

// freeAddress finds a loopback address nobody listens on. The receiver binds it a moment later.
func freeAddress() (string, error) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer socket.Close()
	return socket.Addr().String(), nil
}
