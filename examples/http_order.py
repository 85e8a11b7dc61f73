"""An order over HTTP: buy, look, change, cancel, with the venue's demo account.

    make run                                # in another terminal
    .venv/bin/python examples/http_order.py

The port of the gateway may be given as an argument.
"""

import asyncio
import sys

from engine.clients import HttpClient, RejectedError


async def main(port: int) -> None:
    # Beyond the demo: HttpClient(url, key="...", secret="...") with what `matchd key make` prints.
    async with HttpClient(f"http://127.0.0.1:{port}") as venue:
        order = await venue.submit("BTC-USDT", "buy", "0.5", "60000.00")
        print(f"{order.status}: {order.remaining_quantity} at {order.price}")

        # An answer that is lost is asked for again: the same id never makes a second order.
        again = await venue.submit("BTC-USDT", "buy", "0.5", "60000.00",
                                   client_order_id=order.client_order_id)
        print(f"the same order: {again.order_id == order.order_id}")

        try:
            await venue.submit("BTC-USDT", "buy", "0.5", "60000.001")
        except RejectedError as error:
            print(f"refused: {error.code}")

        order = await venue.change(order, quantity="0.2")
        print(f"reduced: {order.remaining_quantity}")
        book = await venue.book("BTC-USDT")
        print(f"best bid: {book['bids'][0]}")
        order = await venue.cancel(order)
        print(f"{order.status}: {order.reason}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
