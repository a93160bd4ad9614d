package faultproxy

import (
	"net"
	"sync"
)

// serveBytes passes chunks both ways until one side ends or the link is dropped.
func (p *Proxy) serveBytes(l *link) {
	defer reset(l.client)
	broker, err := p.dial(l.ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer reset(broker)
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, broker, l.client) })
	pumps.Go(func() { p.pump(l, l.client, broker) })
	<-l.ctx.Done()
	reset(l.client)
	reset(broker)
	pumps.Wait()
}

func (p *Proxy) pump(l *link, to, from net.Conn) {
	defer l.cancel()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.pause(l) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
