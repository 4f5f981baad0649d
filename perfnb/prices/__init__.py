"""What tokens cost: the user's prices, those a recording brought along, and the list of genai-prices; no network."""

from perfnb.prices.prices import Prices
from perfnb.prices.rates import Cost, Rates, band, cost

__all__ = ["Cost", "Prices", "Rates", "band", "cost"]
